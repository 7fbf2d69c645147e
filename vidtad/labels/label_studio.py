"""Label Studio exports of video tasks: timeline labels (in frames) and labels of the sound track (in seconds).

Timeline ranges count frames from 1 at the rate of the labelling interface (`frameRate` of its Video tag, 25 unless
set), whatever the video's own rate: the rate used is a finding, and can be given.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from vidtad.formats.label_types import Gather

FRAME_RATE = 25.0
MOST_FRAMES = 1e15
"""Frames that no video has."""
_LABELS = ("timelinelabels", "labels", "videolabels")


def is_export(document: Any) -> bool:
    """Whether this JSON document is a list of tasks, in the full or the small form."""
    if not isinstance(document, list) or not document or not all(isinstance(task, dict) for task in document):
        return False
    full = any("annotations" in task and "data" in task for task in document[:50])
    return full or any("id" in task and _media(task) for task in document[:50])


def gather(document: list[Mapping[str, Any]], into: Gather, frame_rate: float | None = None) -> None:
    """Add every task's video and the segments of its (not cancelled) annotations."""
    in_frames = 0
    for task in document:
        data = task.get("data")
        stated = _media(data if isinstance(data, dict) else task) or str(task.get("file_upload") or "")
        if not stated:
            into.findings.add("task without a video", f"id {task.get('id')}")
            continue
        video = into.video(stated)
        rate = frame_rate or FRAME_RATE
        for value in _values(task):
            label_lists = [value[key] for key in _LABELS if isinstance(value.get(key), list)]
            labels = [label for each in label_lists for label in each]
            ranges = value.get("ranges")
            for label in labels:
                if isinstance(ranges, list):
                    in_frames += len(ranges)
                    for start, end in map(_range, ranges):
                        into.add(video, label, start and (start - 1) / rate, end and end / rate)
                elif "start" in value and "end" in value:
                    into.add(video, label, value["start"], value["end"])
    if in_frames and frame_rate is None:
        into.findings.add(
            "segment in frames, taken at Label Studio's 25 a second", "give the frame rate otherwise", in_frames,
            serious=False,
        )  # fmt: skip


def _media(data: Mapping[str, Any]) -> str:
    """The stated video; uploads carry a random prefix of 8 hexadecimal digits, which is not part of the name."""
    for key in ("video", "video_url", "video_path", "url", "audio"):
        text = data.get(key)
        if isinstance(text, str) and text.strip():
            text = text.partition("?")[0]
            folder, slash, name = text.rpartition("/")
            head, dash, rest = name.partition("-")
            uploaded = "upload" in folder and dash and len(head) == 8 and all(c in "0123456789abcdef" for c in head)
            return rest if uploaded else folder.partition("://")[2] + slash + name if "://" in folder else text
    return ""


def _values(task: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The value objects of a task's results; of the small form, what its label columns hold."""
    annotations = task.get("annotations")
    if isinstance(annotations, list):
        for annotation in annotations:
            if not isinstance(annotation, dict) or annotation.get("was_cancelled"):
                continue
            results = annotation.get("result")
            for result in results if isinstance(results, list) else ():
                value = result.get("value") if isinstance(result, dict) else None
                if isinstance(value, dict):
                    yield value
        return
    for column in task.values():
        for value in column if isinstance(column, list) else ():
            if isinstance(value, dict):
                yield value


def _range(entry: Any) -> tuple[Any, Any]:
    """(first frame, last frame), counted from 1; None for what is no number."""
    ends = [entry.get(key) if isinstance(entry, dict) else None for key in ("start", "end")]
    sound = [isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < MOST_FRAMES for v in ends]
    return ends[0] if sound[0] else None, ends[1] if sound[1] else None
