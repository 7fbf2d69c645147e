"""Scoring detections as the published programs do: one call for files, one for tables in memory."""

from vidtad.evaluation.files import Extras, evaluate_files
from vidtad.evaluation.protocols import PROTOCOLS, Protocol, protocol_named
from vidtad.evaluation.result import Evaluation
from vidtad.evaluation.scoring import evaluate
from vidtad.evaluation.tables import Table, tables

__all__ = [
    "PROTOCOLS",
    "Evaluation",
    "Extras",
    "Protocol",
    "Table",
    "evaluate",
    "evaluate_files",
    "protocol_named",
    "tables",
]
