"""Fetching published files into the cache: resumed, verified while they stream, never half there."""

import hashlib
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from vidtad.errors import InputError, RunError, unknown
from vidtad.hub.registry import CHECKPOINTS, Checkpoint
from vidtad.runtime.files import sha256, write_text
from vidtad.runtime.locks import turn

ReportProgress = Callable[[int, "int | None"], None]
"""Called with the bytes done and the bytes in all (None: not known)."""

MAX_BYTES = 16 << 30
ATTEMPTS = 3
PAUSE_S = 1.0
TIMEOUT_S = 30.0


class _Interrupted(Exception):
    """The transfer stopped before its end; what came is kept and another attempt may go on from there."""


def cache_dir() -> Path:
    """Folder of downloaded and added models: $VIDTAD_CACHE, else the platform's cache folder; it may not exist."""
    given = os.environ.get("VIDTAD_CACHE")
    if given:
        return Path(given).expanduser()
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "vidtad" / "cache"
    if os.uname().sysname == "Darwin":
        return Path.home() / "Library" / "Caches" / "vidtad"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vidtad"


def checkpoint_path(checkpoint: Checkpoint) -> Path:
    """Where the cache keeps this checkpoint, and where a file fetched by hand is to be put."""
    return cache_dir() / "checkpoints" / checkpoint.id / checkpoint.file_name


def record_path(path: Path) -> Path:
    """The note beside a cached file with the SHA-256 it had when it came."""
    return path.with_name(path.name + ".sha256")


def published(id: str) -> Checkpoint:
    """The published checkpoint `id`. Raises InputError with the near ones."""
    if id in CHECKPOINTS:
        return CHECKPOINTS[id]
    raise InputError(unknown("published checkpoint", id, CHECKPOINTS, "see `vidtad models list`"))


def fetch(which: str | Checkpoint, *, progress: ReportProgress | None = None, offline: bool = False) -> Path:
    """The cached file of a published checkpoint, downloaded first when it is not there, verified either way.

    A file whose project publishes no hash is trusted the first time: its SHA-256 is noted beside it and must
    stay the same. An interrupted download goes on where it stopped. Processes that want the same file at once
    take turns. `progress` is called with (bytes done, bytes in all or None). Raises InputError for an unknown id, with
    the near ones, and RunError, naming the address and where to put the file by hand, when it cannot be had.
    """
    checkpoint = published(which) if isinstance(which, str) else which
    path = checkpoint_path(checkpoint)
    if path.is_file():
        return verify(path, checkpoint)
    if checkpoint.url is None:
        raise RunError(
            f"{checkpoint.id} has no address to fetch it from: get {checkpoint.how_to_get or 'it by hand'}, "
            f"then run `vidtad models add FILE --as {checkpoint.id}`"
        )
    if offline:
        raise RunError(f"{checkpoint.id} is not in the cache and fetching is off: {_by_hand(checkpoint)}")
    _check_address(checkpoint.url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path.parent}: cannot be made ({error.strerror or error})") from error
    with turn(path.with_name(path.name + ".lock")):
        if path.is_file():
            return verify(path, checkpoint)
        return _download(checkpoint, path, progress or (lambda done, total: None))


def verify(path: Path, checkpoint: Checkpoint) -> Path:
    """`path`, if its hash is the published one or, where none is, the one noted when it came (noted if new).

    Raises RunError when it is another file.
    """
    found = sha256(path)
    record = record_path(path)
    if checkpoint.sha256 and not found.startswith(checkpoint.sha256):
        raise RunError(
            f"{path}: damaged or another file (SHA-256 {found[:16]}, published {checkpoint.sha256}); delete it and "
            f"run `vidtad models fetch {checkpoint.id}`"
        )
    noted = _read_text(record)
    if noted is None:
        write_text(record, found + "\n")
    elif noted.split()[:1] != [found]:
        raise RunError(
            f"{path}: changed since it came (SHA-256 {found[:16]}, noted {noted[:16].strip()}); delete it and fetch "
            f"it again, or delete {record.name} beside it if the change is yours"
        )
    return path


def _download(checkpoint: Checkpoint, path: Path, progress: ReportProgress) -> Path:
    """One file into `path`, in as many as ATTEMPTS goes. The caller holds the lock."""
    part = path.with_name(path.name + ".part")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            digest, whole = _transfer(checkpoint, part, progress)
            break
        except _Interrupted as error:
            if attempt == ATTEMPTS:
                raise RunError(f"{checkpoint.url}: {error}; {_by_hand(checkpoint)}, or try again") from error
            time.sleep(PAUSE_S * attempt)
    if checkpoint.sha256 and not digest.startswith(checkpoint.sha256):
        _forget(part)
        raise RunError(
            f"{checkpoint.url}: what came is not the published file (SHA-256 {digest[:16]}, expected "
            f"{checkpoint.sha256}) and was not kept; {_by_hand(checkpoint)}"
        )
    if not checkpoint.sha256 and not checkpoint.md5:
        _check_unhashed(checkpoint, part, whole)
    write_text(record_path(path), digest + "\n")
    try:
        os.replace(part, path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from error
    _forget(part)
    return path


def _check_unhashed(checkpoint: Checkpoint, part: Path, whole: bool) -> None:
    """Raise RunError unless a file without a published hash reads as weights, or else came `whole` by its length."""
    from vidtad.hub.reading import LAYOUTS, read_checkpoint

    if checkpoint.layout in LAYOUTS:
        try:
            read_checkpoint(part)
            return
        except InputError as error:
            reason = f"what came does not read as weights ({error})"
    elif whole:
        return
    else:
        reason = "the server did not say how long the file is, and no hash of it is published"
    _forget(part)
    raise RunError(
        f"{checkpoint.url}: {reason}, so it may be cut off or another file, and was not kept; {_by_hand(checkpoint)}"
    )


def _transfer(checkpoint: Checkpoint, part: Path, progress: ReportProgress) -> tuple[str, bool]:
    """Bring `part` to its full length: its SHA-256, and whether the server had said that length.

    Raises _Interrupted or RunError.
    """
    assert checkpoint.url is not None
    have, validator = _resumable(part, known=checkpoint.sha256 is not None, url=checkpoint.url)
    headers = {"User-Agent": "vidtad", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    request = urllib.request.Request(checkpoint.url, headers=headers)
    try:
        with _opener().open(request, timeout=TIMEOUT_S) as response:
            return _receive(checkpoint, response, part, have, progress)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            _forget(part)
        if error.code in (408, 416, 429) or error.code >= 500:
            raise _Interrupted(f"the server answered {error.code}") from error
        raise RunError(
            f"{checkpoint.url}: the server answered {error.code} {error.reason}; {_by_hand(checkpoint)}"
        ) from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise _Interrupted(f"cannot be reached ({str(reason) or type(reason).__name__})") from error


def _receive(
    checkpoint: Checkpoint, response: Any, part: Path, have: int, progress: ReportProgress
) -> tuple[str, bool]:
    if "text/html" in response.headers.get("Content-Type", ""):
        raise RunError(f"{checkpoint.url}: a web page came instead of the file; {_by_hand(checkpoint)}")
    if have and (response.status != 206 or not _starts_at(response, have)):
        have = 0
    length = response.headers.get("Content-Length", "")
    total = have + int(length) if length.isdecimal() else None
    if total is not None:
        _check_room(checkpoint, part, total, have)
    digest = hashlib.sha256()
    try:
        with open(part, "r+b" if have else "wb") as file:
            for start in range(0, have, 1 << 20):
                digest.update(file.read(min(1 << 20, have - start)))
            _note_source(part, response, checkpoint.url or "")
            done = have
            progress(done, total)
            while block := _read(response):
                file.write(block)
                digest.update(block)
                done += len(block)
                if done > MAX_BYTES or (total is not None and done > total):
                    raise RunError(f"{checkpoint.url}: more came than was announced; {_by_hand(checkpoint)}")
                progress(done, total)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RunError(f"{part}: cannot be written ({error.strerror or error}); free space, then try again") from error
    if total is not None and done < total:
        raise _Interrupted(f"cut off after {done} of {total} bytes")
    return digest.hexdigest(), total is not None


def _read(response: Any) -> bytes:
    try:
        return response.read(1 << 18)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(f"cut off ({str(error) or type(error).__name__})") from error


def _starts_at(response: Any, have: int) -> bool:
    return response.headers.get("Content-Range", "").startswith(f"bytes {have}-")


def _check_room(checkpoint: Checkpoint, part: Path, total: int, have: int) -> None:
    if total > MAX_BYTES:
        raise RunError(f"{checkpoint.url}: {total} bytes, more than {MAX_BYTES} are not fetched")
    with suppress(OSError):
        free = shutil.disk_usage(part.parent).free
        if total - have > free:
            raise RunError(
                f"{part.parent}: {total - have} bytes to come but {free} free; free space or set VIDTAD_CACHE"
            )


def _resumable(part: Path, *, known: bool, url: str) -> tuple[int, str]:
    """Bytes that need not come again, and the server's mark for the version they are of.

    Without such a mark a rest is only joined to them when a published hash will tell whether they fit.
    """
    try:
        have = part.stat().st_size
        source = json.loads(_read_text(_source_path(part)) or "{}")
        validator = source["validator"] if source["url"] == url else ""
    except (OSError, ValueError, KeyError, TypeError):
        return 0, ""
    return (have, validator) if validator or (known and source["url"] == url) else (0, "")


def _source_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _note_source(part: Path, response: Any, url: str) -> None:
    mark = response.headers.get("ETag", "")
    # A weak mark does not promise equal bytes.
    mark = response.headers.get("Last-Modified", "") if not mark or mark.startswith("W/") else mark
    write_text(_source_path(part), json.dumps({"url": url, "validator": mark}))


def _forget(part: Path) -> None:
    for path in (part, _source_path(part)):
        with suppress(OSError):
            path.unlink()


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _by_hand(checkpoint: Checkpoint) -> str:
    return f"get {checkpoint.url} by hand and put it at {checkpoint_path(checkpoint)}"


def _check_address(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{url}: not a web address; only http and https are fetched")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to the web only, and never from https to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise RunError(f"{req.full_url}: redirected to {newurl[:200]}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        # The base class refuses file: itself, but as one more HTTP error that reads like the server's.
        target = urllib.parse.urljoin(req.full_url, headers.get("Location", ""))
        if headers.get("Location") and urllib.parse.urlsplit(target).scheme not in ("http", "https"):
            raise RunError(f"{req.full_url}: redirected to {target[:200]}, which is not followed")
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _opener() -> urllib.request.OpenerDirector:
    """Opens http and https and nothing else (no file:, ftp: or data:)."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener
