"""ELAN annotation documents (.eaf, version 3.0): a tier per class and person, times in whole milliseconds.

Tiers cannot hold overlapping annotations, so those go to further tiers `label (2)`, `label (3)`. ELAN has no
place for scores; what is read back has score 1.
"""

from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree
from xml.etree.ElementTree import SubElement

from vidtad.errors import InputError
from vidtad.formats.document import named
from vidtad.formats.elan_times import annotation_times
from vidtad.formats.label_types import Gather
from vidtad.formats.shared import PERSON, Videos, parse_xml, tiers, xml_safe
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
    """Every annotation with its text as label (the tier's name where it has none); findings are its warnings.

    Raises InputError for a broken document, or one without a usable annotation.
    """
    into = Gather()
    read_labels(text, path, into)
    return into.timeline(videos, "elan")


def read_labels(text: str, path: Path, into: Gather) -> None:
    """Add the one video of a document. Raises InputError for XML that cannot be read safely.

    The video is the first one linked, else the document's own name; times are those of its clock (annotation time and
    TIME_ORIGIN). Annotations without times of their own have those of the annotation they belong to.
    """
    with named(path):
        root = parse_xml(text)
    into.on_player = True
    media, origin_s = _media(root, into)
    video = into.video(media or path.stem)
    times = annotation_times(root)
    for tier in root.iter("TIER"):
        person = PERSON.fullmatch(tier.get("PARTICIPANT") or "")
        for annotation in tier.iter():
            if annotation.tag not in ("ALIGNABLE_ANNOTATION", "REF_ANNOTATION"):
                continue
            id, value = annotation.get("ANNOTATION_ID") or "", (annotation.findtext("ANNOTATION_VALUE") or "").strip()
            if id not in times:
                into.findings.add("ELAN annotation without times left out", f"{tier.get('TIER_ID')}: {value or id}")
                continue
            start, end = times[id]
            track = int(person[1]) if person else None
            into.add(video, value or tier.get("TIER_ID"), start + origin_s, end + origin_s, track=track)


def _media(root: ElementTree.Element, into: Gather) -> tuple[str, float]:
    """(the linked video, else the first linked file of any kind, "" without one; its TIME_ORIGIN in seconds)."""
    linked = [
        (
            element.get("RELATIVE_MEDIA_URL") or element.get("MEDIA_URL") or "",
            element.get("MIME_TYPE") or "",
            element.get("TIME_ORIGIN") or "0",
        )
        for element in root.iter("MEDIA_DESCRIPTOR")
    ]
    linked.sort(key=lambda item: not item[1].startswith("video"))
    if not linked:
        return "", 0.0
    films = [url for url, kind, _ in linked if kind.startswith("video")]
    if len(films) > 1:
        into.findings.add("several videos are linked, the first is taken", ", ".join(films), serious=False, fate="kept")
    url, _, origin = linked[0]
    try:
        origin_s = int(origin) / 1000
    except ValueError as error:
        raise InputError(f"TIME_ORIGIN {origin[:40]!r} of {url} is no whole number of milliseconds") from error
    return unquote(urlsplit(url).path if "://" in url or url.startswith("file:") else url), origin_s


def fits(text: str) -> bool:
    """Whether this is an ELAN document."""
    return "<ANNOTATION_DOCUMENT" in text[:20_000]


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
