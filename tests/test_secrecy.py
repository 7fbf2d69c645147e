"""Passwords, keys and signatures in addresses reach neither a terminal nor a file."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.bundles import seeded_react
from tests.clips import numbered_frames, write_clip
from vidtad.cli import app
from vidtad.errors import InputError, RunError
from vidtad.secrecy import masked

SECRET = "hunter2SeCrEt"
ADDRESSES = (
    f"ftp://user:{SECRET}@host/x.mp4",
    f"s3://key:{SECRET}@bucket/x.mp4",
    f"s3:/key:{SECRET}@bucket/x.mp4",
    f"https://host/x.mp4?X-Amz-Signature={SECRET}&X-Amz-Credential={SECRET}",
    f"https://host/x.mp4?a=1&X-Goog-Signature={SECRET}",
    f"https://account.host/x.mp4?sv=2024&sig={SECRET}",
    f"rtsp://admin:{SECRET}@10.0.0.2/stream",
    f"ray://user:{SECRET}@head:10001",
    f"https://host/x.mp4#token={SECRET}",
    f"https://{SECRET}@host/x.mp4",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_what_identifies_its_user_is_masked(address: str) -> None:
    text = masked(f"vidtad: {address}: no such file")
    assert SECRET not in text and "***" in text and text.endswith(": no such file")
    assert masked(text) == text
    for error in (InputError(f"{address}: gone"), RunError(f"{address}: gone")):
        assert SECRET not in str(error)


@pytest.mark.parametrize(
    "text", ["clips/a@b.mp4", "s3://bucket/a@b.mp4", "me@example.org", "walk=fast", "C:/x/y@z.mp4", "key=value", ""]
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert masked(text) == text


@given(st.text(alphabet="ab:/@?&=.-", max_size=40))
def test_masking_twice_is_masking_once(text: str) -> None:
    assert masked(masked(text)) == masked(text)


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(
    "command",
    [
        ("extract", "ADDRESS", "--extractor", "tiny3d", "--weights", "random"),
        ("extract", "clip.mp4", "--extractor", "tiny3d", "--weights", "ADDRESS"),
        ("extract", "clip.mp4", "--extractor", "tiny3d", "--weights", "random", "--keep-flow", "ADDRESS"),
        ("detect", "ADDRESS", "--model", "b.safetensors", "--json"),
        ("detect", "clip.mp4", "--model", "ADDRESS"),
        ("detect", "clip.mp4", "--model", "b.safetensors", "--out", "ADDRESS"),
        ("train", "--annotations", "ADDRESS", "--videos", ".", "--out", "x.safetensors"),
        ("evaluate", "ADDRESS", "ADDRESS"),
        ("convert", "ADDRESS", "--to", "csv"),
        ("report", "ADDRESS"),
        ("models", "add", "ADDRESS"),
        ("models", "show", "ADDRESS", "--json"),
        ("labels", "check", "ADDRESS"),
        ("info", "ADDRESS"),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_no_command_says_or_writes_them(
    command: tuple[str, ...], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIDTAD_CACHE", str(tmp_path / "cache"))
    if "b.safetensors" in command:
        seeded_react(tmp_path / "b.safetensors", queries=3, width=16, heads=2, feed_forward=16)
    if "clip.mp4" in command:
        write_clip(tmp_path / "clip.mp4", numbered_frames(20), 25)
    result = CliRunner().invoke(app, [word.replace("ADDRESS", address) for word in command])
    assert SECRET not in result.output and result.exit_code in (1, 2), result.output
    for path in tmp_path.rglob("*"):
        assert SECRET.encode() not in (path.read_bytes() if path.is_file() else b""), path


def test_places_elsewhere_are_stored_without_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("VIDTAD_CACHE", str(tmp_path / "cache"))
    clip = write_clip(tmp_path / "clip.mp4", numbered_frames(60), 25)
    system = fsspec.filesystem("memory")
    system.pipe_file(f"/key:{SECRET}@in/clip.mp4", clip.read_bytes())
    bundle = seeded_react(tmp_path / "b.safetensors")
    try:
        told = ["detect", f"memory://key:{SECRET}@in/clip.mp4", "--model", str(bundle), "--out", str(tmp_path / "t")]
        result = CliRunner().invoke(app, told)
    finally:
        system.store.clear()
        system.pseudo_dirs[:] = [""]
    assert result.exit_code == 0 and SECRET not in result.output
    document = json.loads((tmp_path / "t" / "clip.json").read_text())
    assert document["videos"]["clip"]["path"] == "memory://***@in/clip.mp4"
    for path in (tmp_path / "t").rglob("*"):
        assert SECRET.encode() not in path.read_bytes()
