"""Files that claim far more than they hold, read with little memory left: one sentence, and no more memory than that.

Each is a few kilobytes or megabytes and announces gigabytes. One child process reads them all, its address space
held to `MARGIN` above what the imports take.
"""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.bundles import seeded_react
from tests.clips import numbered_frames, write_clip

MARGIN = 1 << 30
GRID = ("--fps", 25, "--stride", 4, "--window", 16)
ENDURED = {"report string.json", "report entries.json"} | {
    f"{command} frames.{kind}" for command in ("info", "extract") for kind in ("avi", "mp4")
}
"""Where the file may as well be read: it is as large as it says, or its count of frames is a claim nobody believes."""
CHILD = """
import json, resource, sys
import av, cv2, numpy, scipy.optimize, torch, safetensors.torch
from typer.testing import CliRunner
from vidtad.cli import app
import vidtad.pipelines.detect.temporal, vidtad.pipelines.extract.extraction
torch.set_num_threads(1)
folder, margin, commands = sys.argv[1], int(sys.argv[2]), json.load(sys.stdin)
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + margin
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for name, command in commands.items():
    found = CliRunner().invoke(app, command)
    odd = found.exception is not None and not isinstance(found.exception, SystemExit)
    print(json.dumps([name, found.exit_code, found.stderr, repr(found.exception) if odd else ""]), flush=True)
"""


def array_header(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def archive_of_zeros(megabytes: int) -> bytes:
    """An .npz of a few bytes a megabyte."""
    rows = (megabytes << 20) // 400
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("feats.npy", "w") as entry:
        entry.write(array_header((rows, 100)))
        for _ in range(rows * 400 // (1 << 20) + 1):
            entry.write(bytes(1 << 20))
    return file.getvalue()


def tensors_header(shape: list[int], end: int, metadata: dict[str, str] | None = None) -> bytes:
    entry = {"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}
    text = json.dumps(entry | ({"__metadata__": metadata} if metadata else {})).encode()
    return len(text).to_bytes(8, "little") + text + bytes(64)


def avi_claims(avi: bytes, side: int | None, frames: int | None) -> bytes:
    """`avi` with other sizes of the picture, or another count of pictures, in all its headers."""
    data = bytearray(avi)
    main, stream, format = data.index(b"avih") + 8, data.index(b"strh") + 8, data.index(b"strf") + 8
    if frames is not None:
        data[main + 16 : main + 20] = data[stream + 32 : stream + 36] = frames.to_bytes(4, "little")
    if side is not None:
        data[main + 32 : main + 40] = data[format + 4 : format + 12] = side.to_bytes(4, "little") * 2
    return bytes(data)


def mp4_claims(mp4: bytes, frames: int) -> bytes:
    """`mp4` with another count of samples, all of one size."""
    data = bytearray(mp4)
    at = data.index(b"stsz") + 8
    data[at : at + 8] = (9).to_bytes(4, "big") + frames.to_bytes(4, "big")
    at = data.index(b"stts") + 12
    data[at : at + 4] = frames.to_bytes(4, "big")
    return bytes(data)


def write_bombs(folder: Path) -> dict[str, tuple[object, ...]]:
    """The files, and a command for each."""
    bundle = seeded_react(folder / "b.safetensors", width=32, heads=4, queries=8, clip_len=16, feed_forward=64)
    clip = write_clip(folder / "clip.mp4", numbered_frames(12), 25).read_bytes()
    avi = write_clip(folder / "clip.avi", numbered_frames(12), 25, codec="mpeg4").read_bytes()
    raw = write_clip(folder / "raw.avi", numbered_frames(4), 25, codec="rawvideo").read_bytes()
    segment = '{"label": "a", "segment": [0, 1], "score": 1}'
    files: dict[str, bytes] = {
        "deep.json": b'{"results": ' + b"[" * 2_000_000 + b"]" * 2_000_000 + b"}",
        "deeper.json": b'{"a":' * 1_000_000 + b"1" + b"}" * 1_000_000,
        "number.json": b'{"results": {"m": [{"label": "a", "segment": [0, ' + b"9" * 3_000_000 + b'], "score": 1}]}}',
        "string.json": b'{"results": {"m": [{"label": "' + b"x" * 30_000_000 + b'", "segment": [2, 1]}]}}',
        "entries.json": b'{"results": {"m": [' + b"[]," * 3_000_000 + segment.encode() + b"]}}",
        "long.npy": array_header((10**12, 128)) + bytes(4096),
        "wide.npy": array_header((4, 10**12)) + bytes(4096),
        "bomb.npz": archive_of_zeros(1500),
        "huge.safetensors": tensors_header([10**6, 10**6], 4 * 10**12),
        "lies.safetensors": tensors_header([10**6, 10**6], 64),
        "header.safetensors": (1 << 40).to_bytes(8, "little") + b"{" + bytes(64),
        "sides.avi": avi_claims(raw, 100_000, None),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    out = ("--out", folder / "out")
    commands: dict[str, tuple[object, ...]] = {}
    for name in files:
        path = folder / name
        if name.endswith(".json"):
            commands[f"report {name}"] = ("report", path, *out)
            commands[f"labels {name}"] = ("labels", "check", path)
            commands[f"detect {name}"] = ("detect", folder / "clip.mp4", "--model", bundle, "--boxes", path, *out)
        elif name.endswith((".npy", ".npz")):
            commands[f"detect {name}"] = ("detect", path, "--model", bundle, *GRID, *out)
            commands[f"evaluate {name}"] = ("evaluate", folder / "number.json", path)
            weights = ("--extractor", "tiny3d", "--weights", path)
            commands[f"extract {name}"] = ("extract", folder / "clip.mp4", *weights, *out)
        elif name.endswith(".safetensors"):
            commands[f"detect {name}"] = ("detect", folder / "clip.mp4", "--model", path, *out)
            converted = ("--from", "react", "--out", folder / "o.safetensors")
            commands[f"convert {name}"] = ("models", "convert", path, *converted)
        else:
            commands[f"info {name}"] = ("info", path)
            commands[f"extract {name}"] = ("extract", path, "--extractor", "tiny3d", "--weights", "random", *out)
    for name, content in {"frames.avi": avi_claims(avi, None, 10**9), "frames.mp4": mp4_claims(clip, 10**9)}.items():
        (folder / name).write_bytes(content)
        commands[f"info {name}"] = ("info", folder / name)
        random = ("--extractor", "tiny3d", "--weights", "random")
        commands[f"extract {name}"] = ("extract", folder / name, *random, *out)
    return commands


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the size of a process is read from /proc")
def test_claims_take_no_memory(tmp_path: Path) -> None:
    commands = {name: [str(part) for part in command] for name, command in write_bombs(tmp_path).items()}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), str(MARGIN)],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "VIDTAD_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
    )
    found = [json.loads(line) for line in child.stdout.splitlines()]
    assert [name for name, *_ in found] == list(commands), child.stderr[-2000:]
    wrong = []
    for name, code, said, odd in found:
        fine = code in ((0, 1, 2) if name in ENDURED else (1, 2))
        one = [line for line in said.splitlines() if line.startswith("vidtad: ")]
        clear = code == 0 or (len(one) >= 1 and len(said) < 2000)
        if not fine or not clear or odd or "Traceback" in said or "internal error" in said:
            wrong.append((name, code, said[:300], odd))
    assert not wrong, "\n".join(map(str, wrong))
