"""What the built-in temporal detectors reach on unseen generated clips, level by level, one JSON line each.

    python benchmarks/levels.py --work /tmp/levels
    python benchmarks/levels.py --work /tmp/levels --levels 1 --models react motion --clips 10

`mAP` is that of `vidtad demo --level L --videos 50 --model M`: averaged over tIoU 0.3 to 0.7. `without_classes` scores
the same timeline against the same segments with all labels made one, which is all that `motion` knows: what a trained
detector has to beat without being asked for names. (Its second and third guesses at a name then count as wrong.)
"""

import argparse
import json
import time
from pathlib import Path

import torch

from vidtad.evaluation import evaluate_files
from vidtad.heads.catalogue import builtin_bundle
from vidtad.pipelines.demo import FIRST_UNSEEN_SEED
from vidtad.pipelines.detect.dispatch import worker_for
from vidtad.pipelines.detect.motion import HEAD, LABEL
from vidtad.pipelines.detect.worker import Job
from vidtad.runtime.files import write_json
from vidtad.synth import write_clips
from vidtad.timeline import merge, write_timeline_json


def one_label(path: Path, key: str) -> Path:
    """A copy of ground truth ("database") or of a timeline ("results") in which every segment has the same label."""
    document = json.loads(path.read_text())
    for clip in document[key].values():
        for segment in clip["annotations"] if key == "database" else clip:
            segment["label"] = LABEL
    copy = path.with_name(f"{path.stem}_one_label.json")
    write_json(copy, document)
    return copy


def measure(model: str, clips: Path) -> dict[str, float]:
    """Detect in all clips, score twice."""
    began = time.process_time()
    worker, path = worker_for(builtin_bundle(model), Job(out=None)), clips / f"{model}.json"
    write_timeline_json(merge(worker(clip) for clip in sorted(clips.glob("*.mp4"))), path)
    used = time.process_time() - began
    truth = clips / "ground_truth.json"
    single = evaluate_files(one_label(truth, "database"), one_label(path, "results"), "thumos14")
    scores = {"without_classes": round(single.average_mAP, 4), "instances": single.instances, "cpu_s": round(used)}
    if model == HEAD:
        return scores
    return {"mAP": round(evaluate_files(truth, path, "thumos14").average_mAP, 4), **scores}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for clips and timelines")
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--models", nargs="+", default=["react", "actionformer", HEAD])
    parser.add_argument("--clips", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for level in options.levels:
        clips = options.work / f"level{level}"
        write_clips(clips, range(FIRST_UNSEEN_SEED, FIRST_UNSEEN_SEED + options.clips), level)
        for model in options.models:
            line = {"level": level, "model": model, "clips": options.clips, **measure(model, clips)}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
