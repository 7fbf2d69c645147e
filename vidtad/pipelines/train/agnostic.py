"""Heads that find when something happens, and leave what it is to a classifier of whole videos."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from vidtad.errors import InputError
from vidtad.formats.label_types import Labels
from vidtad.pipelines.fuse.segments import VideoScores, read_video_scores

NAME = "action"


def one_class(labels: Labels) -> Labels:
    """The same segments, all of one class."""
    table = labels.table
    return replace(labels, table=replace(table, labels=(NAME,), label=np.zeros_like(table.label), label_ids={}))


def scores_of_videos(path: Path, labels: Labels) -> VideoScores:
    """Class scores of whole videos; a file that does not name its classes has them in the order of the label ids.

    Raises InputError for anything else, naming what is wrong.
    """
    ids = labels.table.label_ids
    ordered = sorted(ids, key=lambda name: ids[name])
    try:
        return read_video_scores(path)
    except InputError:
        if not ordered or [ids[name] for name in ordered] != list(range(len(ordered))):
            raise
    return read_video_scores(path, ordered)
