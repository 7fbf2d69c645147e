"""ELAN annotation documents (.eaf): every tier with time-aligned annotations, times in whole milliseconds.

The label is the annotation's text; an annotation without text takes its tier's name, as people do who keep one
tier for each class. Symbolic tiers (translations, notes) have no times and are left out.
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

from vidtad.formats.document import named
from vidtad.formats.label_types import Gather
from vidtad.formats.shared import parse_xml


def is_elan(text: str) -> bool:
    """Whether this text is an ELAN document."""
    return "<ANNOTATION_DOCUMENT" in text[:20_000]


def gather(text: str, path: Path, into: Gather) -> None:
    """Add the one video of a document. Raises InputError for XML that cannot be read safely."""
    with named(path):
        root = parse_xml(text)
    video = into.video(_media(root) or path.stem)
    times = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    left_out = 0
    for tier in root.iter("TIER"):
        left_out += sum(1 for _ in tier.iter("REF_ANNOTATION"))
        for note in tier.iter("ALIGNABLE_ANNOTATION"):
            value = note.findtext("ANNOTATION_VALUE") or ""
            ends = [_seconds(times.get(note.get(key))) for key in ("TIME_SLOT_REF1", "TIME_SLOT_REF2")]
            into.add(video, value.strip() or tier.get("TIER_ID"), *ends)
    if left_out:
        into.findings.add("ELAN annotation without times of its own left out", path.name, left_out, serious=False)


def _media(root: ElementTree.Element) -> str:
    """The linked video, else the first linked file of any kind; "" without one."""
    linked = [
        (element.get("RELATIVE_MEDIA_URL") or element.get("MEDIA_URL") or "", element.get("MIME_TYPE") or "")
        for element in root.iter("MEDIA_DESCRIPTOR")
    ]
    linked.sort(key=lambda item: not item[1].startswith("video"))
    if not linked:
        return ""
    url = linked[0][0]
    return unquote(urlsplit(url).path if "://" in url or url.startswith("file:") else url)


def _seconds(value: str | None) -> float | None:
    """Seconds of milliseconds; None where a time slot is unaligned."""
    return int(value) / 1000 if value is not None and value.isascii() and value.isdigit() and len(value) < 16 else None
