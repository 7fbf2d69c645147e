"""Ground truth and predictions of any supported format, recognised by what is inside, never by the file
name.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vidtad.errors import InputError
from vidtad.formats import activitynet
from vidtad.formats.document import parse_json
from vidtad.formats.tables import Annotations, Findings, Predictions


def read_annotations(path: Path) -> Annotations:
    """Ground truth in seconds. Raises InputError when the file is missing, unreadable or of no known
    layout.
    """
    findings = Findings()
    content = read_text(path)
    if _is_json(content):
        document = parse_json(content, path, findings)
        for fits, read in ANNOTATION_DOCUMENTS:
            if fits(document):
                return read(document, findings)
        if activitynet.is_predictions(document):
            raise InputError(f"{path}: holds predictions, where ground truth was expected; swap the two files?")
    raise InputError(f"{path}: not a ground-truth file of a known layout (ActivityNet JSON with 'database')")


def read_predictions(path: Path) -> Predictions:
    """Scored segments in seconds. Raises InputError when the file is missing, unreadable or of no known
    layout.
    """
    findings = Findings()
    content = read_text(path)
    if _is_json(content):
        document = parse_json(content, path, findings)
        for fits, read in PREDICTION_DOCUMENTS:
            if fits(document):
                return read(document, findings)
        if activitynet.is_annotations(document):
            raise InputError(f"{path}: holds annotations, where predictions were expected; swap the two files?")
    raise InputError(f"{path}: not a prediction file of a known layout (ActivityNet JSON with 'results')")


def read_text(path: Path) -> str:
    """The file as UTF-8 text. Raises InputError."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8") from error


def _is_json(text: str) -> bool:
    return text[:200].lstrip()[:1] in ("{", "[")


Fits = Callable[[Any], bool]
ANNOTATION_DOCUMENTS: tuple[tuple[Fits, Callable[[Mapping[str, Any], Findings], Annotations]], ...] = (
    (activitynet.is_annotations, activitynet.annotations),
)
PREDICTION_DOCUMENTS: tuple[tuple[Fits, Callable[[Mapping[str, Any], Findings], Predictions]], ...] = (
    (activitynet.is_predictions, activitynet.predictions),
)
