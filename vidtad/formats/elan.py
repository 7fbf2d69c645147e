"""ELAN annotation documents (.eaf, version 3.0): a tier per class and person, times in whole milliseconds.

Tiers cannot hold overlapping annotations, so those go to further tiers `label (2)`, `label (3)`. ELAN has no
place for scores; what is read back has score 1.
"""

from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import SubElement

from vidtad.formats.document import refused
from vidtad.formats.shared import PERSON, Videos, assemble, parse_xml, tiers, xml_safe
from vidtad.timeline import Segment, Timeline

SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
MIME = {".mp4": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm", ".mkv": "video/x-matroska"}


def write(timeline: Timeline) -> dict[str, str]:
    """Document of a timeline of one video."""
    ((name, found),) = timeline.results.items()
    ElementTree.register_namespace("xsi", XSI)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    root = ElementTree.Element("ANNOTATION_DOCUMENT", AUTHOR="vidtad", DATE=now, FORMAT="3.0", VERSION="3.0")
    root.set(f"{{{XSI}}}noNamespaceSchemaLocation", SCHEMA)
    _header(root, timeline.videos[name].path)
    rows = {key: lanes for key, lanes in tiers(found).items() if lanes}
    order = SubElement(root, "TIME_ORDER")
    slots: dict[int, str] = {}
    moments = {moment for lanes in rows.values() for lane in lanes for s in lane for moment in _span(s)}
    for number, moment in enumerate(sorted(moments), 1):
        slots[moment] = f"ts{number}"
        SubElement(order, "TIME_SLOT", TIME_SLOT_ID=slots[moment], TIME_VALUE=str(moment))
    count, names = 0, set[str]()
    for (label, track), lanes in rows.items():
        for depth, lane in enumerate(lanes, 1):
            tier = _tier(root, label, track, depth, names)
            for segment in lane:
                count += 1
                start, end = _span(segment)
                annotation = SubElement(
                    SubElement(tier, "ANNOTATION"),
                    "ALIGNABLE_ANNOTATION",
                    ANNOTATION_ID=f"a{count}",
                    TIME_SLOT_REF1=slots[start],
                    TIME_SLOT_REF2=slots[end],
                )
                SubElement(annotation, "ANNOTATION_VALUE").text = xml_safe(label)
    SubElement(
        root, "LINGUISTIC_TYPE", GRAPHIC_REFERENCES="false", LINGUISTIC_TYPE_ID="default-lt", TIME_ALIGNABLE="true"
    )
    ElementTree.indent(root)
    return {".eaf": '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"}


def read(text: str, videos: Videos, path: Path) -> Timeline:
    """Every aligned annotation with its text as label (the tier's name where it has none); the video is named
    after the file. Raises InputError for a broken document.
    """
    root = parse_xml(text)
    slots = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iter("TIME_SLOT")}
    found = []
    for tier in root.iter("TIER"):
        person = PERSON.fullmatch(tier.get("PARTICIPANT") or "")
        for annotation in tier.iter("ALIGNABLE_ANNOTATION"):
            ends = [slots.get(annotation.get(f"TIME_SLOT_REF{end}")) for end in (1, 2)]
            if None in ends:  # ELAN allows slots without a time; such an annotation has no place of its own
                continue
            value = (annotation.findtext("ANNOTATION_VALUE") or "").strip() or tier.get("TIER_ID") or ""
            with refused("time slots are not whole milliseconds"):
                start, end = (int(moment or "") / 1000 for moment in ends)
            if start < end:
                found.append(Segment(start, end, value, 1.0, int(person[1]) if person else None))
    return assemble({path.stem: found}, videos, source="elan")


def fits(text: str) -> bool:
    """Whether this is an ELAN document."""
    return "<ANNOTATION_DOCUMENT" in text[:2000]


def _header(root: ElementTree.Element, video: str) -> None:
    path, media = Path(video), ""
    with suppress(ValueError):  # half a character, which no file can be named by
        media = path.absolute().as_uri() if video else ""
    header = SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    SubElement(
        header,
        "MEDIA_DESCRIPTOR",
        MEDIA_URL=media,
        MIME_TYPE=MIME.get(path.suffix.lower(), "video/mp4"),
        RELATIVE_MEDIA_URL=f"./{path.name}",
    )


def _tier(root: ElementTree.Element, label: str, track: int | None, depth: int, names: set[str]) -> ElementTree.Element:
    name = xml_safe(label) + (f" person {track}" if track is not None else "") + (f" ({depth})" if depth > 1 else "")
    while name in names:  # ELAN knows tiers by their name, and a class may be called `walk (2)`
        name += "'"
    names.add(name)
    tier = SubElement(root, "TIER", LINGUISTIC_TYPE_REF="default-lt", TIER_ID=name)
    if track is not None:
        tier.set("PARTICIPANT", f"person {track}")
    return tier


def _span(segment: Segment) -> tuple[int, int]:
    start = round(segment.start_s * 1000)
    return start, max(round(segment.end_s * 1000), start + 1)
