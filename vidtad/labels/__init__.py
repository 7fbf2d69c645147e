"""Labels of a user's own videos: reading the files of annotation tools, and finding what is wrong with them."""

from vidtad.labels.check import Check, Duration, check, cleaned
from vidtad.labels.reading import read_labels
from vidtad.labels.types import Labels, video_id

__all__ = ["Check", "Duration", "Labels", "check", "cleaned", "read_labels", "video_id"]
