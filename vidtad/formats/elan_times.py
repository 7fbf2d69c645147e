"""Times of ELAN's annotations: aligned slots, slots in between, and annotations that take their times from others."""

from collections.abc import Mapping
from itertools import pairwise
from xml.etree.ElementTree import Element

Times = dict[str, tuple[float, float]]


def slot_times(root: Element) -> dict[str, float]:
    """Seconds of every time slot that has a time."""
    slots = {}
    for slot in root.iter("TIME_SLOT"):
        value = slot.get("TIME_VALUE") or ""
        if value.isascii() and value.isdigit() and len(value) < 16:
            slots[slot.get("TIME_SLOT_ID") or ""] = int(value) / 1000
    return slots


def annotation_times(root: Element) -> Times:
    """(start, end) in seconds by the id of the annotation; those that have none, nor can be given one, are absent.

    Slots without a time lie evenly between their neighbours in the same chain of annotations, as ELAN draws them.
    An annotation that refers to another takes its time; several in a row (symbolic subdivision) share it evenly.
    """
    slots, times = slot_times(root), Times()
    for tier in root.iter("TIER"):
        times |= _aligned(tier, slots)
    children = [annotation for annotation in root.iter("REF_ANNOTATION")]
    while children:
        waiting, placed = [], False
        by_parent: dict[str, list[Element]] = {}
        for annotation in children:
            by_parent.setdefault(annotation.get("ANNOTATION_REF") or "", []).append(annotation)
        for parent, group in by_parent.items():
            if parent not in times:
                waiting += group
                continue
            placed = True
            times |= _shared(group, times[parent])
        if not placed:
            return times
        children = waiting
    return times


def _aligned(tier: Element, slots: Mapping[str, float]) -> Times:
    annotations = [
        (a.get("ANNOTATION_ID") or "", a.get("TIME_SLOT_REF1") or "", a.get("TIME_SLOT_REF2") or "")
        for a in tier.iter("ALIGNABLE_ANNOTATION")
    ]
    known = dict(slots)
    follows = {first: second for _, first, second in annotations}
    for _, first, _ in annotations:
        if first not in known:
            continue
        chain = [first]
        while chain[-1] in follows and (len(chain) == 1 or chain[-1] not in known) and len(chain) <= len(annotations):
            chain.append(follows[chain[-1]])
        if len(chain) > 2 and chain[-1] in known:
            start, end = known[first], known[chain[-1]]
            for number, slot in enumerate(chain[1:-1], 1):
                known[slot] = start + (end - start) * number / (len(chain) - 1)
    return {id: (known[a], known[b]) for id, a, b in annotations if a in known and b in known}


def _shared(group: list[Element], whole: tuple[float, float]) -> Times:
    """Times of annotations that refer to one: chains of PREVIOUS_ANNOTATION divide it, others have it whole."""
    ids = [annotation.get("ANNOTATION_ID") or "" for annotation in group]
    after = {annotation.get("PREVIOUS_ANNOTATION"): annotation.get("ANNOTATION_ID") or "" for annotation in group}
    times, seen = Times(), set[str]()
    for annotation, id in zip(group, ids, strict=True):
        if annotation.get("PREVIOUS_ANNOTATION") in ids or id in seen:
            continue
        chain = [id]
        while chain[-1] in after and after[chain[-1]] not in chain:
            chain.append(after[chain[-1]])
        seen.update(chain)
        step = (whole[1] - whole[0]) / len(chain)
        edges = [whole[0] + step * number for number in range(len(chain))] + [whole[1]]
        times |= dict(zip(chain, pairwise(edges), strict=True))
    return times
