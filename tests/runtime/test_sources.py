"""What is hashed and what is read are one content, or it is said."""

import os
from pathlib import Path

import pytest

from vidtad.errors import InputError, RunError
from vidtad.runtime import sources
from vidtad.runtime.files import sha256
from vidtad.runtime.sources import Changed, Source, read_hashed


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that was written long ago."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    os.utime(path, (1e9, 1e9))
    return path


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"CONTENT")
    os.utime(other, (1e9, 1e9))
    os.replace(other, path)


def overwritten(path: Path) -> None:
    path.write_bytes(b"CONTENT")


def overwritten_in_silence(path: Path) -> None:
    path.write_bytes(b"CONTENT")
    os.utime(path, (1e9, 1e9))


def cut_off(path: Path) -> None:
    os.truncate(path, 3)
    os.utime(path, (1e9, 1e9))


CHANGES = [replaced, overwritten, overwritten_in_silence, cut_off, Path.unlink]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("hashed", [True, False])
def test_a_change_is_seen(file: Path, change, hashed: bool) -> None:
    source = Source(file)
    source.look()
    if hashed:
        assert source.sha256 == sha256(file)
    source.check(last=True)
    change(file)
    with pytest.raises(Changed, match=r"file: (was changed|is gone)"):
        source.check()


def test_other_rights_and_names_are_no_change(file: Path) -> None:
    source = Source(file)
    digest = source.sha256
    file.chmod(0o600)
    os.link(file, file.with_name("link"))
    source.check()
    copy = file.with_name("copy")
    copy.write_bytes(b"content")
    os.utime(copy, (1e9, 1e9))
    os.replace(copy, file)  # some file systems number a file anew at each opening
    source.check()
    source.check(last=True)
    assert source.sha256 == digest
    overwritten_in_silence(file)
    with pytest.raises(Changed):
        source.check(last=True)


def test_a_write_within_a_tick_of_the_clock_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fresh"
    path.write_bytes(b"content")
    monkeypatch.setattr(sources, "_signature", lambda path: (7, os.stat(tmp_path).st_mtime_ns, 0, 0, 0))
    source = Source(path)
    assert source.sha256
    source.check(last=True)
    path.write_bytes(b"CONTENT")
    with pytest.raises(Changed):
        source.check(last=True)


def test_a_reading_that_fails_over_a_change_says_so(file: Path) -> None:
    with pytest.raises(Changed), Source(file).watched():
        cut_off(file)
        raise InputError("damaged")
    with pytest.raises(InputError, match="damaged"), Source(file).watched():
        raise InputError("damaged")


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_read_is_what_is_hashed(file: Path, change) -> None:
    assert read_hashed(file, Path.read_bytes) == (b"content", sha256(file))

    def read(path: Path) -> bytes:
        found = path.read_bytes()
        change(path)
        return found

    with pytest.raises(RunError):
        read_hashed(file, read)


def test_what_is_no_file_is_an_input_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "none", tmp_path / "pipe", Path("a\0b")):
        with pytest.raises(InputError):
            Source(path).look()
