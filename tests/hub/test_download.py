"""Downloads against a server on this machine: good, corrupt, cut off, resumed, redirected, concurrent."""

import hashlib
import http.server
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from vidtad.errors import InputError, RunError
from vidtad.hub import download as downloads
from vidtad.hub.download import cache_dir, checkpoint_path, fetch, record_path
from vidtad.hub.registry import Checkpoint

BODY = bytes(range(256)) * 4096
HASH = hashlib.sha256(BODY).hexdigest()


@dataclass
class Served:
    """What the server does; `requests` are the Range headers it saw, one an answer."""

    body: bytes = BODY
    etag: str = '"one"'
    status: int = 200
    redirect: str = ""
    content_type: str = "application/octet-stream"
    cut_after: list[int] = field(default_factory=list)
    ranges: bool = True
    announce: int | None = None
    requests: list[str | None] = field(default_factory=list)
    hold: threading.Event | None = None
    says_length: bool = True
    url: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    served: Served

    def do_GET(self):
        served = self.server.served
        wanted = self.headers.get("Range")
        served.requests.append(wanted)
        if served.redirect or served.status != 200:
            self.send_response(302 if served.redirect else served.status)
            if served.redirect:
                self.send_header("Location", served.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        if wanted and served.ranges and self.headers.get("If-Range", served.etag) == served.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start >= len(served.body):
            self.send_response(416)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = served.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(served.body) - 1}/{len(served.body)}")
        if served.says_length:
            self.send_header("Content-Length", str(served.announce or len(body)))
        self.send_header("Content-Type", served.content_type)
        if served.etag:
            self.send_header("ETag", served.etag)
        self.end_headers()
        cut = served.cut_after.pop(0) if served.cut_after else len(body)
        self.wfile.write(body[:cut])
        if served.hold:
            self.wfile.flush()
            served.hold.wait(30)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Clients that hang up are what some tests are about."""


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDTAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloads, "PAUSE_S", 0)
    server = Server(("127.0.0.1", 0), Handler)
    server.served = Served(url=f"http://127.0.0.1:{server.server_port}/models/weights.pth")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server.served
    server.shutdown()
    server.server_close()


def checkpoint(served, **changes):
    values = {"id": "net", "task": "classification", "layout": "plain", "network": "net", "source": "test"}
    return Checkpoint(**values | {"url": served.url, "sha256": HASH[:8]} | changes)


def left_over(path):
    """Files beside the finished one, other than its record and the lock."""
    return {p.name for p in path.parent.iterdir()} - {path.name, path.name + ".sha256", path.name + ".lock"}


def test_good_then_cached(served):
    steps = []
    path = fetch(checkpoint(served), progress=lambda done, total: steps.append((done, total)))
    assert path == cache_dir() / "checkpoints" / "net" / "weights.pth"
    assert path.read_bytes() == BODY
    assert steps[0] == (0, len(BODY)) and steps[-1] == (len(BODY), len(BODY))
    assert record_path(path).read_text() == HASH + "\n"
    assert left_over(path) == set()
    assert fetch(checkpoint(served), offline=True) == path
    assert served.requests == [None]


def test_wrong_hash_is_not_kept(served):
    with pytest.raises(RunError, match=r"not the published file.*by hand and put it at .*weights\.pth") as caught:
        fetch(checkpoint(served, sha256="00" * 32))
    assert served.url in str(caught.value)
    path = checkpoint_path(checkpoint(served))
    assert not path.exists() and left_over(path) == set()


def test_without_a_published_hash_the_first_one_is_kept_to(served):
    trusting = checkpoint(served, sha256=None, layout="unread")
    path = fetch(trusting)
    assert record_path(path).read_text() == HASH + "\n"
    assert fetch(trusting) == path
    path.write_bytes(BODY[:-1])
    with pytest.raises(RunError, match="changed since it came"):
        fetch(trusting)


def test_a_damaged_cached_file_is_not_handed_out(served):
    path = fetch(checkpoint(served))
    path.write_bytes(b"x" + BODY[1:])
    with pytest.raises(RunError, match="damaged or another file"):
        fetch(checkpoint(served))


def test_a_file_put_there_by_hand_is_verified_and_used(served):
    path = checkpoint_path(checkpoint(served))
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)
    assert fetch(checkpoint(served), offline=True) == path
    assert record_path(path).read_text() == HASH + "\n"
    assert served.requests == []


def test_cut_off_goes_on_where_it_stopped(served):
    served.cut_after = [300_000]
    path = fetch(checkpoint(served))
    assert path.read_bytes() == BODY
    assert served.requests == [None, "bytes=300000-"]
    assert left_over(path) == set()


def test_cut_off_every_time_keeps_what_came_for_the_next_run(served):
    served.cut_after = [1000, 1000, 1000]
    with pytest.raises(RunError, match=rf"cut off after 3000 of {len(BODY)} bytes"):
        fetch(checkpoint(served))
    path = checkpoint_path(checkpoint(served))
    assert not path.exists()
    assert fetch(checkpoint(served)).read_bytes() == BODY
    assert served.requests[-1] == "bytes=3000-"


def test_a_file_that_changed_on_the_server_comes_whole(served):
    served.cut_after = [1000, 1000, 1000]
    with pytest.raises(RunError):
        fetch(checkpoint(served, sha256=None, layout="unread"))
    served.body, served.etag = BODY[::-1], '"two"'
    assert fetch(checkpoint(served, sha256=None, layout="unread")).read_bytes() == BODY[::-1]
    assert served.requests[-1] == "bytes=3000-"


def test_a_server_without_ranges_sends_all_again(served):
    served.cut_after, served.ranges = [1000], False
    assert fetch(checkpoint(served)).read_bytes() == BODY


def test_without_a_mark_of_the_version_nothing_is_joined_unverified(served):
    served.cut_after, served.etag = [1000], ""
    assert fetch(checkpoint(served, sha256=None, layout="unread")).read_bytes() == BODY
    assert served.requests == [None, None]


def test_a_complete_leftover_is_fetched_anew(served):
    served.announce, served.cut_after = len(BODY) + 10, []
    with pytest.raises(RunError, match=r"cut off|416"):
        fetch(checkpoint(served))
    served.announce = None
    assert fetch(checkpoint(served)).read_bytes() == BODY


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,hello", "FILE:/etc/hostname"])
def test_redirects_off_the_web_are_refused(served, target):
    served.redirect = target
    with pytest.raises(RunError, match=r"redirected to .*not followed"):
        fetch(checkpoint(served, sha256=None, layout="unread"))
    assert not checkpoint_path(checkpoint(served)).exists()
    assert served.requests == [None]


def test_redirects_on_the_web_are_followed(served):
    other = Server(("127.0.0.1", 0), Handler)
    other.served = Served()
    threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
    served.redirect = f"http://127.0.0.1:{other.server_port}/elsewhere"
    try:
        assert fetch(checkpoint(served)).read_bytes() == BODY
    finally:
        other.shutdown()
        other.server_close()


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://host/file.pth", "weights.pth", "http:///x"])
def test_addresses_off_the_web_are_refused(served, url):
    with pytest.raises(InputError, match="not a web address"):
        fetch(checkpoint(served, url=url))


def test_a_web_page_is_no_file(served):
    served.content_type = "text/html; charset=utf-8"
    with pytest.raises(RunError, match="a web page came"):
        fetch(checkpoint(served))


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (503, 3)])
def test_refusals_name_the_status(served, status, tries):
    served.status = status
    with pytest.raises(RunError, match=f"answered {status}.*by hand"):
        fetch(checkpoint(served))
    assert served.requests == [None] * tries


def test_no_network(served):
    with pytest.raises(RunError, match=r"127\.0\.0\.1:1/.*cannot be reached.*put it at"):
        fetch(checkpoint(served, url="http://127.0.0.1:1/weights.pth"))


def test_offline(served):
    with pytest.raises(RunError, match=r"fetching is off.*by hand and put it at"):
        fetch(checkpoint(served), offline=True)
    assert served.requests == []


def test_without_an_address(served):
    with pytest.raises(RunError, match=r"get it from the moon, then run `vidtad models add FILE --as net`"):
        fetch(checkpoint(served, url=None, how_to_get="it from the moon"))


def test_more_than_announced_or_allowed(served, monkeypatch):
    monkeypatch.setattr(downloads, "MAX_BYTES", 1000)
    with pytest.raises(RunError, match="more than 1000 are not fetched"):
        fetch(checkpoint(served))


def test_no_room_is_said_before_anything_comes(served, monkeypatch):
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(RunError, match="but 10 free"):
        fetch(checkpoint(served))


FULL_DISK = """
import resource, signal, sys
from vidtad.hub.download import fetch
from vidtad.errors import RunError
from vidtad.hub.registry import Checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    fetch(Checkpoint("net", "classification", "plain", "net", "test", url=sys.argv[1]))
except RunError as error:
    sys.exit(str(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file size are POSIX")
def test_a_disk_that_fills_up_is_one_sentence(served):
    done = subprocess.run([sys.executable, "-c", FULL_DISK, served.url], capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr and "Traceback" not in done.stderr
    assert not checkpoint_path(checkpoint(served)).exists()


ONE_FETCH = """
import sys
from vidtad.hub.download import fetch
from vidtad.hub.registry import Checkpoint
checkpoint = Checkpoint("net", "classification", "plain", "net", "test", url=sys.argv[1], sha256=sys.argv[2])
print(fetch(checkpoint))
"""


def test_two_processes_at_once_take_turns(served):
    command = [sys.executable, "-c", ONE_FETCH, served.url, HASH]
    served.hold = threading.Event()  # the first answer is not finished before the second process is running
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    threading.Timer(1.0, served.hold.set).start()
    answers = {process.communicate(timeout=60)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    path = checkpoint_path(checkpoint(served))
    assert answers == {str(path)}
    assert path.read_bytes() == BODY
    assert served.requests == [None]


def test_threads_at_once_take_turns(served):
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetch(checkpoint(served)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and set(found) == {checkpoint_path(checkpoint(served))}
    assert served.requests == [None]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="the folder of Linux")
def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("VIDTAD_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("VIDTAD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "vidtad"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "vidtad"


def weights_file(path: Path) -> bytes:
    torch.save({"state_dict": {"a": torch.arange(2000.0)}}, path)
    return path.read_bytes()


def test_a_file_of_unknown_length_must_read_as_weights(served, tmp_path):
    whole = weights_file(tmp_path / "w.pth")
    served.says_length = False
    unhashed = checkpoint(served, sha256=None, layout="torch")
    served.body = whole[: len(whole) // 2]
    with pytest.raises(RunError, match=r"does not read as weights .*may be cut off or another file, and was not kept"):
        fetch(unhashed)
    assert not checkpoint_path(unhashed).exists() and not list(checkpoint_path(unhashed).parent.glob("*.part*"))
    served.body = whole
    assert fetch(unhashed).read_bytes() == whole


def test_a_page_under_another_name_is_not_kept_for_weights(served):
    served.body = b"<!DOCTYPE html><title>Quota exceeded</title>" + b" " * 2000
    unhashed = checkpoint(served, sha256=None, layout="torch")
    with pytest.raises(RunError, match=r"does not read as weights .*was not kept"):
        fetch(unhashed)
    assert not checkpoint_path(unhashed).exists()
