"""Coverage-guided fuzzing of everything that reads strangers' files, with atheris (`pip install atheris`, Linux).

    python scripts/fuzz.py timeline                          until Ctrl-C
    python scripts/fuzz.py ava corpus/ava -max_total_time=60 keeping interesting inputs; options are libFuzzer's
    python scripts/fuzz.py --list

A reader may raise the package's own errors and nothing else, must stay under libFuzzer's memory limit (2 GiB, its
`-rss_limit_mb`), and must not take longer than its `-timeout`. What breaks that is written to `crash-...`: give the
file to the same command to see it again. Small valid files seed each run.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

Reader = Callable[[Path], object]


def timeline(path: Path) -> None:
    """A timeline, and everything that is written from one."""
    from vidtad.formats.interchange import write_formats
    from vidtad.timeline import read_timeline

    found = read_timeline(path)
    write_formats(found, path.parent / "out", ("srt", "elan", "cvat", "labelstudio"))


def labels(path: Path) -> None:
    """Label files of every kind."""
    from vidtad.formats.label_reading import read_labels
    from vidtad.labels.check import check

    check(read_labels(path), None)


def features(path: Path) -> None:
    """A feature array without a sidecar."""
    from fractions import Fraction

    from vidtad.features import Assumed, load_features

    load_features(path, Assumed(4, 16, Fraction(25)))


def sidecar(path: Path) -> None:
    """The sidecar of a sound array."""
    from vidtad.features import load_features

    load_features(path.with_suffix(".npy"))


def bundle(path: Path) -> None:
    """A detector bundle."""
    from vidtad.hub.bundle import load_bundle

    load_bundle(path)


def checkpoint(path: Path) -> None:
    """A checkpoint of whatever kind."""
    from vidtad.hub.reading import read_checkpoint

    read_checkpoint(path)


def ava(path: Path) -> None:
    """Boxes in an AVA table."""
    from vidtad.formats.ava import read_boxes

    read_boxes(path)


def boxes(path: Path) -> None:
    """A file of person boxes."""
    from vidtad.formats.person_boxes import read_person_boxes

    read_person_boxes(path)


def predictions(path: Path) -> None:
    """A table of predictions."""
    from vidtad.formats.reading import read_predictions

    read_predictions(path)


def convert(path: Path) -> None:
    """What `vidtad convert` reads: files of annotation tools, subtitles, tables."""
    from fractions import Fraction

    from vidtad.formats.interchange import read_any
    from vidtad.video import VideoInfo

    read_any(path, {"m": VideoInfo("m.mp4", 64, 48, Fraction(25), 9.0, 225)})


def video(path: Path) -> None:
    """A video container, described and decoded within `VIDEO_S` seconds."""
    import signal
    import threading

    from vidtad.video import open_video, probe

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {VIDEO_S} s for one small clip")

    timed = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGALRM, late) if timed else None
    if timed:
        signal.alarm(VIDEO_S)
    try:
        probe(path)
        for frame in open_video(path):
            frame.rgb()
    finally:
        if timed:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)


VIDEO_S = 20
SEGMENT = {"label": "walk", "segment": [1.0, 2.0], "score": 0.5}
VIDEO = {"path": "m.mp4", "width": 64, "height": 48, "fps": 25.0, "fps_exact": "25", "duration_s": 9.0, "frames": 225}
TIMELINE = {
    "version": "vidtad timeline 1",
    "results": {"m": [SEGMENT]},
    "external_data": {},
    "videos": {"m": VIDEO},
    "detector": {"name": "x", "classes": ["walk"], "warnings": []},
}
TRUTH = {"database": {"m": {"duration": 9.0, "subset": "validation", "annotations": [SEGMENT]}}}
TOOLS = {
    "srt": ".srt",
    "vtt": ".vtt",
    "elan": ".eaf",
    "boris": ".tsv",
    "via": ".json",
    "labelstudio": ".json",
    "cvat": ".xml",
    "csv": ".csv",
}
TARGETS: dict[str, tuple[Reader, str, bytes]] = {
    "timeline": (timeline, "x.json", json.dumps(TIMELINE).encode()),
    "labels-json": (labels, "x.json", json.dumps(TRUTH).encode()),
    "labels-csv": (labels, "x.csv", b"video,start_s,end_s,label\nm,1.0,2.5,walk\n"),
    "labels-elan": (labels, "x.eaf", b"<?xml version='1.0'?><ANNOTATION_DOCUMENT><TIME_ORDER/></ANNOTATION_DOCUMENT>"),
    "features": (features, "x.npy", b""),
    "sidecar": (sidecar, "x.json", b""),
    "bundle": (bundle, "x.safetensors", b""),
    "checkpoint": (checkpoint, "x.pth", b""),
    "ava": (ava, "x.csv", b"m,0902,0.1,0.2,0.5,0.9,12,0.7\n"),
    "boxes": (boxes, "x.csv", b"m,0902,0.1,0.2,0.5,0.9,,0.7\n"),
    **{f"convert-{name}": (convert, f"m{suffix}", b"") for name, suffix in TOOLS.items()},
    **{f"video-{kind}": (video, f"x.{kind}", b"") for kind in ("mp4", "mkv", "ts", "avi")},
    "predictions": (predictions, "x.json", json.dumps({"results": {"m": [SEGMENT]}}).encode()),
}


def seeds(name: str, folder: Path) -> list[bytes]:
    """Valid files of a target; what `folder` must hold beside them is left there."""
    _, _, seed = TARGETS[name]
    if seed:
        return [seed]
    kind = name.partition("-")[2]
    if name.startswith("convert-"):
        from vidtad.formats.interchange import render
        from vidtad.timeline import read_timeline

        (folder / "timeline.json").write_text(json.dumps(TIMELINE))
        made = render(read_timeline(folder / "timeline.json"), kind)
        # Label Studio's second file is the look of its page, which nobody reads back.
        return [text.encode() for part, text in made.items() if part.endswith(TOOLS[kind])]
    if name.startswith("video-"):
        return [clip(folder / f"seed.{kind}")]
    import io
    from fractions import Fraction

    import numpy as np
    import torch

    from vidtad.features import Features, Grid, Provenance, save_features
    from vidtad.hub.bundle import Bundle, save_bundle
    from vidtad.video import VideoInfo

    values = np.zeros((3, 2), np.float32)
    if name in ("features", "sidecar"):
        grid = Grid.regular(Fraction(25), 4, 16, 3)
        info = VideoInfo("m.mp4", 64, 48, Fraction(25), 9.0, 225)
        array = save_features(Features(values, grid, info, Provenance("x", (("rgb", 2),))), folder, "x")
        return [array.read_bytes() if name == "features" else array.with_suffix(".json").read_bytes()]
    if name == "bundle":
        sampling = {"window": 16, "stride": 4, "fps": None}
        weights = {"w": torch.zeros(2)}
        made = Bundle("x", "react", {}, ("walk",), "tiny3d", sampling, (("rgb", 2),), head_weights=weights)
        return [save_bundle(made, folder / "seed.safetensors").read_bytes()]
    files = []
    for legacy in (False, True):
        buffer = io.BytesIO()
        torch.save({"w": torch.zeros(2)}, buffer, _use_new_zipfile_serialization=not legacy)
        files.append(buffer.getvalue())
    buffer = io.BytesIO()
    np.savez(buffer, w=values)
    return [*files, buffer.getvalue()]


def clip(path: Path) -> bytes:
    """Eight frames of 64 x 48 pixels."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(8):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 30 * number, np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path.read_bytes()


def main() -> None:
    """Fuzz the target that is named."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        listed = "\n".join(f"{name}: {(reader.__doc__ or '').strip()}" for name, (reader, _, _) in TARGETS.items())
        print(listed if sys.argv[1:] == ["--list"] else f"name one of these:\n{listed}")
        raise SystemExit(0 if sys.argv[1:] == ["--list"] else 2)
    try:
        import atheris
    except ImportError as error:
        raise SystemExit("fuzzing needs atheris: pip install atheris") from error
    with atheris.instrument_imports(include=["vidtad"]):
        import vidtad.features
        import vidtad.formats.interchange
        import vidtad.formats.label_reading
        import vidtad.formats.person_boxes
        import vidtad.formats.reading
        import vidtad.hub.bundle
        import vidtad.hub.pickles
        import vidtad.hub.reading  # noqa: F401
        from vidtad.errors import VidtadError
    name = sys.argv.pop(1)
    read, file_name, _ = TARGETS[name]
    folder = Path(tempfile.mkdtemp(prefix="vidtad-fuzz-"))
    beginning = folder / "seeds"
    beginning.mkdir()
    for number, seed in enumerate(seeds(name, folder)):
        (beginning / str(number)).write_bytes(seed)
    path = folder / file_name

    def one(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read(path)
        except VidtadError:
            return

    atheris.Setup([*sys.argv, str(beginning)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
