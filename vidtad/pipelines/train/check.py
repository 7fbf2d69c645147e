"""Label files against the videos or features that are there: the work of `vidtad labels check`."""

from pathlib import Path

from vidtad.formats.label_reading import read_labels
from vidtad.labels import Check, check
from vidtad.pipelines.train.data import check_material, find_material


def check_files(
    annotations: Path, videos: Path | None = None, features: Path | None = None, *, frame_rate: float | None = None
) -> tuple[Check, dict[str, str]]:
    """The report on a label file, and the reasons why some videos cannot be read.

    Raises InputError for labels of no known layout, or when none of the labelled videos is there.
    """
    labels = read_labels(annotations, frame_rate=frame_rate)
    if videos is None and features is None:
        return check(labels, None), {}
    material = find_material(labels, videos, features)
    return check_material(labels, material), dict(material.broken)
