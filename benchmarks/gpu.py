"""Everything that is measured on a GPU, in one run: network, whole extraction, flow, resizing, heads, people.

    python benchmarks/gpu.py                            some ten minutes; writes benchmarks/results/gpu-<name>.json
    python benchmarks/gpu.py --cases network flow       some of it
    python benchmarks/gpu.py --device cpu --tiny        seconds: shows that the script runs, its figures mean nothing

One JSON line a measurement. Without a GPU it says so and exits with 2. Weights are seeded and random, the video is made
for the run. Baselines, named in each line, are in the same run: the card's own matrix product in the same format, the
network without decoding, OpenCV's TV-L1 and Pillow on one thread, one window at a time, local attention by `unfold`,
float32, and clip by clip with PyAV and the published network. `ratio`: how many times ours is quicker, or the fraction
of the baseline's rate where the baseline is a limit (`fraction`).
"""

import argparse
import dataclasses
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from on_gpu import TINY, Bench, Sizes
from plain import FPS, PlainPeople, acar_bundle, write_boxes

Line = dict[str, Any]


def matmul_rate(bench: Bench, precision: str) -> float:
    """Measured operations a second of a large matrix product, float32 without TF32."""
    import torch

    from vidtad.extractors import PRECISIONS

    side, dtype = bench.sizes.side, PRECISIONS[precision]
    a, b = (torch.randn(side, side, device=bench.device).to(dtype) for _ in range(2))
    return 2 * side**3 / bench.seconds(lambda: a @ b, 2 * bench.sizes.repeats)


def operations(extractor: str) -> float:
    """Of one window, two a multiply-add."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from vidtad.extractors import PRESETS

    preset = PRESETS[extractor]
    settings = preset.convention
    network: Any = preset.network().eval()
    clip = torch.zeros(1, len(settings.mean), len(settings.shown), settings.crop, settings.crop)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.features(clip)
    return float(counter.get_total_flops())


def network_rate(bench: Bench, extractor: Any, batch: int) -> float:
    """Windows a second of pictures in the host's memory to rows on the device, no window sharing a frame."""
    settings = extractor.convention
    count = batch * len(settings.shown)
    pictures = np.random.default_rng(0).integers(
        0, 256, (count, settings.crop, settings.crop, len(settings.mean)), np.uint8
    )
    index = np.arange(count).reshape(batch, -1)
    return batch / bench.seconds(lambda: extractor.rows(pictures, index))


def network(bench: Bench) -> Iterator[Line]:
    """The network at batch against the card's matrix product; a row of each precision against the processor's."""
    from vidtad.pipelines.extract.load import load_extractor

    name, flops = bench.sizes.extractor, operations(bench.sizes.extractor)
    settings = load_extractor(name, "random:0").extractor.convention
    clip = np.random.default_rng(1).integers(0, 256, (1, settings.window, settings.crop, settings.crop, 3), np.uint8)
    exact = load_extractor(name, "random:0").extractor(clip)
    for precision in bench.sizes.precisions:
        peak = matmul_rate(bench, precision)
        extractor = load_extractor(name, "random:0", device=bench.device, precision=precision).extractor
        error = float(np.abs(extractor(clip) - exact).max() / np.abs(exact).max())
        for batch in bench.sizes.batches:
            rate = network_rate(bench, extractor, batch)
            yield {
                "case": f"network-{precision}-batch-{batch}",
                "ours": {"windows_per_s": round(rate, 2), "tflops": round(rate * flops / 1e12, 3)},
                "baseline_name": f"matrix product {bench.sizes.side} x {bench.sizes.side} in {precision}",
                "baseline": {"tflops": round(peak / 1e12, 3)},
                "fraction": round(rate * flops / peak, 4),
                "difference_from_cpu": float(f"{error:.1e}"),
            }


def whole(bench: Bench) -> Iterator[Line]:
    """Video to feature file against the network alone: near 1, the decoder keeps up."""
    from vidtad.pipelines.extract.extraction import extract_file
    from vidtad.pipelines.extract.load import load_extractor

    batch = bench.sizes.batches[-1] // 4 or 1
    for precision in bench.sizes.precisions[::2]:
        for stride in (4, 16):
            loaded = load_extractor(
                bench.sizes.extractor, "random:0", device=bench.device, precision=precision, stride=stride
            )
            alone = network_rate(bench, loaded.extractor, batch)
            path = bench.movie(bench.sizes.frames, bench.sizes.height)
            out = bench.folder / "features"

            def work(path: Path = path, loaded: Any = loaded, out: Path = out) -> Any:
                return extract_file(path, loaded, out, batch=batch, overwrite=True)

            rows = len(work().features.values)
            seconds = bench.seconds(work, 1)
            yield {
                "case": f"extraction-{precision}-stride-{stride}",
                "ours": {
                    "windows_per_s": round(rows / seconds, 2),
                    "frames_per_s": round(bench.sizes.frames / seconds, 1),
                },
                "baseline_name": "the network alone, pictures in memory",
                "baseline": {"windows_per_s": round(alone, 2)},
                "fraction": round(rows / seconds / alone, 3),
            }


def flow(bench: Bench) -> Iterator[Line]:
    """TV-L1 in PyTorch, many pairs at once, against OpenCV's on one thread."""
    import cv2

    from vidtad.flow import grey, tvl1_opencv, tvl1_torch
    from vidtad.video import open_video

    most = bench.sizes.chunks[-1]
    with open_video(bench.movie(max(bench.sizes.frames, most + 1), bench.sizes.height)) as video:
        pictures = np.stack([grey(frame.rgb()) for frame, _ in zip(video, range(most + 1), strict=False)])
    first, second = pictures[:-1], pictures[1:]
    threads, few = cv2.getNumThreads(), min(4, most)
    cv2.setNumThreads(1)
    begun = time.process_time()
    expected = np.concatenate([tvl1_opencv(first[k : k + 1], second[k : k + 1]) for k in range(few)])
    alone = few / (time.process_time() - begun)
    cv2.setNumThreads(threads)
    for chunk in bench.sizes.chunks:
        made = tvl1_torch(first[:few], second[:few], device=bench.device)
        seconds = bench.seconds(lambda c=chunk: tvl1_torch(first[:c], second[:c], device=bench.device), 2)  # type: ignore[misc]
        yield {
            "case": f"tvl1-{chunk}-pairs",
            "ours": {"pairs_per_s": round(chunk / seconds, 2)},
            "baseline_name": "OpenCV, one thread, processor seconds",
            "baseline": {"pairs_per_s": round(alone, 3)},
            "ratio": round(chunk / seconds / alone, 2),
            "mean_difference_px": float(f"{np.abs(made - expected).mean():.1e}"),
        }


def shrinking(bench: Bench) -> Iterator[Line]:
    """Pillow's resizing to a short side of 256, on the device and back, against Pillow itself on one thread."""
    import torch

    from vidtad.extractors.preprocess import target_size
    from vidtad.extractors.shrink import by_device, by_pillow, order_of

    device = torch.device(bench.device)
    for height, width in bench.sizes.pictures:
        picture = np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)
        size = target_size(height, width, 256, "pillow")
        found = order_of((height, width), size, device)
        ours = bench.seconds(lambda p=picture, s=size: by_device(p, s, device))  # type: ignore[misc]
        alone = bench.seconds(lambda p=picture, s=size: by_pillow(p, s))  # type: ignore[misc]
        yield {
            "case": f"shrinking-{width}x{height}",
            "ours": {"pictures_per_s": round(1 / ours, 1), "on_the_device": found is not None},
            "baseline_name": "Pillow, one thread",
            "baseline": {"pictures_per_s": round(1 / alone, 1)},
            "ratio": round(alone / ours, 2),
            "equal": bool(np.array_equal(by_device(picture, size, device), by_pillow(picture, size))),
        }


def detector(bench: Bench, head: str, precision: str) -> Any:
    """A temporal detector of released size (or a tiny one) with seeded weights."""
    import torch

    from vidtad.heads.registry import load_detector
    from vidtad.hub.bundle import Bundle
    from vidtad.models.actionformer import ActionFormer
    from vidtad.models.actionformer_config import ActionFormerConfig
    from vidtad.models.react import ReAct, ReActConfig

    torch.manual_seed(0)
    width = bench.sizes.width
    config: Any = ActionFormerConfig(in_channels=width) if head == "actionformer" else ReActConfig(in_channels=width)
    made: Any = ActionFormer(config) if head == "actionformer" else ReAct(config)
    if head == "actionformer":
        made.set_prior(0.05)
    bundle = Bundle(
        name="seeded",
        head=head,
        head_config=dataclasses.asdict(config),
        classes=tuple(f"class {number}" for number in range(config.classes)),
        extractor="none",
        sampling={"window": 16, "stride": 4},
        channels=(("rgb", width),),
        head_weights=made.state_dict(),
    )
    return load_detector(bundle, bench.device, precision)


def drawn(steps: int, width: int) -> np.ndarray:
    """Feature rows."""
    return np.random.default_rng(0).standard_normal((steps, width), dtype=np.float32)


def react(bench: Bench) -> Iterator[Line]:
    """One hour, windows together against one by one; float32 against bf16."""
    values, alone = drawn(bench.sizes.react_steps, bench.sizes.width), None
    for precision in ("float32", "bf16"):
        found = detector(bench, "react", precision)
        together = bench.seconds(lambda found=found: found(values), 3)  # type: ignore[misc]
        found.batch = 1
        single = bench.seconds(lambda found=found: found(values), 1)  # type: ignore[misc]
        alone = alone or single
        yield {
            "case": f"react-hour-{precision}",
            "rows": len(values),
            "ours": {"seconds": round(together, 4)},
            "baseline_name": f"one window after the other in {precision}",
            "baseline": {"seconds": round(single, 4)},
            "ratio": round(single / together, 2),
            "ratio_to_float32_one_by_one": round(alone / together, 2),
        }


def actionformer(bench: Bench) -> Iterator[Line]:
    """A whole video, against local attention by `unfold`, and bf16 against float32."""
    from detect import unfolded_attention

    from vidtad.models import actionformer as module

    for steps in bench.sizes.steps:
        values = drawn(steps, bench.sizes.width)
        ours = {precision: _passed(bench, values, precision) for precision in ("float32", "bf16")}
        own, module.local_attention = module.local_attention, unfolded_attention  # type: ignore[assignment]
        try:
            base = _passed(bench, values, "float32")
        finally:
            module.local_attention = own
        yield {
            "case": f"actionformer-{steps}",
            "ours": ours,
            "baseline_name": "local attention by unfold, float32",
            "baseline": base,
            "ratio": round(base["seconds"] / ours["float32"]["seconds"], 2),
            "ratio_bf16_to_float32": round(ours["float32"]["seconds"] / ours["bf16"]["seconds"], 2),
        }


def _passed(bench: Bench, values: np.ndarray, precision: str) -> Any:
    found = detector(bench, "actionformer", precision)
    seconds = bench.seconds(lambda: found(values), 3)
    return {"seconds": round(seconds, 5), "extra_mib": bench.peak_mib(lambda: found(values))}


def acar(bench: Bench) -> Iterator[Line]:
    """People of a video at every second, boxes given, against clip by clip."""
    from vidtad.heads.person.bundle import person_bundle, random_network
    from vidtad.heads.person.options import PeopleOptions
    from vidtad.pipelines.detect.person_detector import PeopleDetector

    seconds = bench.sizes.clip_s
    path = bench.movie(seconds * FPS, bench.sizes.height)
    boxes = bench.folder / "boxes.csv"
    write_boxes(boxes, path, seconds)
    bundle = acar_bundle()
    if not bench.sizes.people:
        classes = tuple(f"class {number}" for number in range(60))
        bundle = person_bundle(
            "tiny", "acar", random_network("acar", "slowfast/tiny"), trunk="slowfast/tiny", classes=classes
        )
    plain = PlainPeople(path, seconds * FPS, 8, bundle, bench.device)
    single = bench.seconds(plain, 1) / len(plain.chosen)
    for precision in ("float32", "bf16"):
        found = PeopleDetector(bundle, PeopleOptions(boxes=boxes, batch=8), bench.device, precision)
        cost = bench.seconds(lambda found=found: found(path), 1) / seconds  # type: ignore[misc]
        yield {
            "case": f"acar-{precision}",
            "ours": {"keyframes_per_s": round(1 / cost, 3)},
            "baseline_name": "clip by clip: seek, decode, published network in float32",
            "baseline": {"keyframes_per_s": round(1 / single, 3)},
            "ratio": round(single / cost, 2),
        }


CASES: dict[str, Callable[[Bench], Iterator[Line]]] = {
    "network": network,
    "extraction": whole,
    "flow": flow,
    "shrinking": shrinking,
    "react": react,
    "actionformer": actionformer,
    "acar": acar,
}


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), metavar="CASE")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that any processor runs in seconds")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/gpu-<name of the card>.json")
    options = parser.parse_args()
    import torch

    if options.device != "cpu" and not torch.cuda.is_available():
        print("no GPU that PyTorch can use is here: run this on a machine with one", file=sys.stderr)
        raise SystemExit(2)
    if options.device == "cpu" and not options.tiny:
        print("--device cpu is for trying the script: add --tiny", file=sys.stderr)
        raise SystemExit(2)
    name = "cpu" if options.device == "cpu" else torch.cuda.get_device_name()
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    out = options.out or Path(__file__).parent / "results" / f"gpu-{slug}.json"
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.device, TINY if options.tiny else Sizes(), Path(folder))
        for case in options.cases:
            for line in CASES[case](bench):
                lines.append({"device": name, **line})
                print(json.dumps(lines[-1]), flush=True)
                kept = {"device": name, "tiny": options.tiny, "machine": machine(), "measurements": lines}
                out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
