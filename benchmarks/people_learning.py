"""Does each person-box head learn what it is for? Frame mAP on generated clips in which people act at a distance.

Whoever stretches an arm "hands over" when the person at the other end of the picture does so too, and merely "reaches
out" when not: what tells the two apart is done by another person, further away than what a cell of the maps sees.
Scores bundles of `scripts/train_people_demo.py` on clips of other seeds, through the code of `vidtad detect`, with
annotated boxes and with boxes the Action Transformer found itself, the same ones for all heads. `its I3D head` is the
baseline of the Action Transformer's paper, trained with it on the same trunk: the person's region, without attention.
Prints one JSON line a case: its frame mAP (AVA's rules, box IoU 0.5), per-class AP, and the linear head's of the same
run as `baseline`.

    python benchmarks/people_learning.py --clips 20 --work /tmp/people
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidtad.evaluation import Evaluation, evaluate_files
from vidtad.evaluation.frames import box_iou
from vidtad.formats.person_boxes import read_person_boxes
from vidtad.heads.catalogue import BUILTIN_FOLDER
from vidtad.hub.bundle import Bundle, load_bundle
from vidtad.pipelines.detect.person_detector import OWN, PeopleDetector, PeopleOptions
from vidtad.synth import write_people_clips
from vidtad.timeline import Timeline, merge, write_timeline_json

HEADS = ("linear", "acar", "acfb", "action-transformer")
FIRST_SEED = 1001
PERSON_SCORE = 0.5


def detected(bundle: Bundle, clips: Path, boxes: Path | None, *, region_alone: bool = False) -> Timeline:
    """Timelines of all clips with boxes of a file, or (None) the network's own; `region_alone`: by the I3D head."""
    bundle = replace(bundle, decoding={"action_score": 0.0, "person_score": PERSON_SCORE})
    detector = PeopleDetector(bundle, PeopleOptions(boxes=boxes) if boxes else PeopleOptions(persons=OWN))
    if region_alone:
        head = detector.network.head
        head.forward = lambda maps, rows, valid=None: head.run(maps, rows).i3d_logits[:, 1:]
    return merge(detector(path) for path in sorted(clips.glob("*.mp4")))


def scored(timeline: Timeline, clips: Path, path: Path) -> Evaluation:
    """Frame mAP, from the files a user would have."""
    write_timeline_json(timeline, path)
    return evaluate_files(clips / "people.csv", path, "ava", label_map=clips / "classes.pbtxt")


def quality(boxes: Path, truth: Path) -> dict[str, float]:
    """Share of annotated people with a box of IoU 0.5 or more, and of boxes with such a person, at their keyframes."""
    found, wanted = read_person_boxes(boxes, threshold=PERSON_SCORE), read_person_boxes(truth)
    hit, people, right, count = 0, 0, 0, 0
    for video, keyframes in wanted.items():
        for second, (there, _) in keyframes.items():
            given = found[video].get(second, (np.zeros((0, 4), np.float32), None))[0]
            pairs = [np.repeat(there, len(given), axis=0), np.tile(given, (len(there), 1))]
            good = (box_iou(*pairs) >= 0.5).reshape(len(there), len(given))
            hit, people = hit + int(good.any(axis=1).sum()), people + len(there)
            right, count = right + int(good.any(axis=0).sum()), count + len(given)
    return {"recall": round(hit / people, 4), "precision": round(right / max(count, 1), 4)}


def main() -> None:
    """Render, detect with every head, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--work", type=Path, required=True, help="folder for clips and timelines")
    parser.add_argument("--bundles", type=Path, default=BUILTIN_FOLDER, help="folder of demo-HEAD.safetensors")
    given = parser.parse_args()
    torch.set_num_threads(1)
    clips = given.work / "clips"
    write_people_clips(clips, range(FIRST_SEED, FIRST_SEED + given.clips))
    bundles = {name: load_bundle(given.bundles / f"demo-{name}.safetensors") for name in HEADS}
    proposed = given.work / "proposed.json"
    own = scored(detected(bundles["action-transformer"], clips, None), clips, proposed)
    print(json.dumps({"case": "proposed boxes", **quality(proposed, clips / "people.csv")}), flush=True)
    for kind, boxes in (("annotated boxes", clips / "people.csv"), ("proposed boxes", proposed)):
        base = None
        for name, bundle in bundles.items():
            began = time.process_time()
            result = scored(detected(bundle, clips, boxes), clips, given.work / "timeline.json")
            base = base or result.average_mAP
            _say(f"{name}, {kind}", result, base, time.process_time() - began)
        region = detected(bundles["action-transformer"], clips, boxes, region_alone=True)
        _say(f"its I3D head, {kind}", scored(region, clips, given.work / "timeline.json"), base, None)
    _say("action-transformer, its own regions", own, base, None)


def _say(case: str, result: Evaluation, base: float | None, cpu_s: float | None) -> None:
    line: dict[str, Any] = {"case": case, "ours": round(result.average_mAP, 4), "baseline": round(base or 0, 4)}
    line["ratio"] = round(line["ours"] / line["baseline"], 3) if line["baseline"] else None
    line["per_class"] = {name: round(float(ap[0]), 3) for name, ap in zip(result.classes, result.ap, strict=True)}
    if cpu_s is not None:
        line["cpu_s"] = round(cpu_s, 1)
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
