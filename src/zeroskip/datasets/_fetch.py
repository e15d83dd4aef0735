"""Downloads that go on where they were cut off, and that are checked before they count.

What has come lies in `NAME.part`, what the server called it in `NAME.part.json`; only a whole file with the right sum
gets its name. `checksums.json` in the data folder keeps the sum of every file that was downloaded: where nobody vouches
for a sum, the first download is trusted, and a later one must be the same.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .._errors import DamagedFile, InvalidArgument, ZeroskipError
from ._files import Remote

CHECKSUMS = "checksums.json"
CHUNK_BYTES = 1 << 20
ATTEMPTS = 5
PAUSE_S = 1.0
TIMEOUT_S = 60.0

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Fetched:
    """What a download gave.

    Args:
        path: The file.
        sha256: Of its bytes.
        size_bytes: Of them.
        new: It was downloaded now; else it was there.
        vouched: The sum was known before (here, or from an earlier download); else it was taken on trust.
    """

    path: Path
    sha256: str
    size_bytes: int
    new: bool
    vouched: bool


def fetch(
    remote: Remote, folder: Path, *, again: bool = False, progress: Progress = lambda *_: None, attempts: int = ATTEMPTS
) -> Fetched:
    """Bring a file into a data folder, unless it is there.

    Args:
        again: Download it although it is there; the old file is replaced when the new one is whole.
        progress: Called as `(file name, bytes done, bytes in all)`; all is 0 where the server does not say.
        attempts: How often a broken connection is taken up again, from where it broke.
    Raises:
        DamagedFile: If its sum is not the one that is known.
        ZeroskipError: If the server refuses or cannot be reached, the connection breaks too often, or the disk is full.
    """
    goal = folder / remote.path
    sums = _sums(folder)
    known = remote.sha256 or sums.get(remote.path)
    if goal.is_file() and not again:
        digest = _hash_of(goal)
        if known is not None and digest != known:
            raise DamagedFile(f"get: {goal} has SHA-256 {digest}, not {known}; pass --again to replace it.")
        return Fetched(goal, digest, goal.stat().st_size, new=False, vouched=known is not None)
    part = goal.with_name(goal.name + ".part")
    with _disk(goal):
        goal.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "ab") as out, _alone(out, part):
            digest = _download(remote, part, out, progress, attempts)
    if known is not None and digest != known:
        _drop(part)
        raise DamagedFile(
            f"get: {remote.url} has SHA-256 {digest}, not {known}, and was not kept; try again, or ask its authors."
        )
    with _disk(goal):
        os.replace(part, goal)
        _drop(part)
        _remember(folder, remote.path, digest)
    return Fetched(goal, digest, goal.stat().st_size, new=True, vouched=known is not None)


def _download(remote: Remote, part: Path, out: IO[bytes], progress: Progress, attempts: int) -> str:
    """All of the file into `part`; the sum of it."""
    failed: Exception | None = None
    for attempt in range(attempts):
        if attempt:
            time.sleep(PAUSE_S * 2 ** (attempt - 1))
        try:
            if _one_request(remote, part, out, progress):
                out.flush()
                os.fsync(out.fileno())
                return _hash_of(part)
            failed = None
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise ZeroskipError(f"get: {remote.url} is refused ({error.code} {error.reason}); {_OTHER}.") from None
            failed = error
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            failed = error
    size = part.stat().st_size
    reason = " ".join(str(getattr(failed, "reason", failed) or "the connection broke").split())
    raise ZeroskipError(
        f"get: {remote.url} broke off {attempts} times ({reason}); {size} bytes are kept, the same command goes on."
    ) from None


_OTHER = "look at the data set's page for another address, and put the file where ZEROSKIP_DATA_DIR points"


def _one_request(remote: Remote, part: Path, out: IO[bytes], progress: Progress) -> bool:
    """Ask for what is missing and append it; whether the file is whole then."""
    have, headers = out.seek(0, os.SEEK_END), {"User-Agent": "zeroskip", "Accept-Encoding": "identity"}
    stamp = _stamp(part)
    if have and stamp is not None:
        headers |= {"Range": f"bytes={have}-", "If-Range": stamp}
    if not remote.url.startswith(("http://", "https://")):
        raise InvalidArgument(f"get: {remote.url} is no address of http or https; give one.")
    request = urllib.request.Request(remote.url, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        out.truncate(0)  # there is nothing behind what we have: it is another file, so from the start
        return False
    with answer:
        begin, total = _span(answer, have)
        if begin != have:
            out.truncate(begin)
        out.seek(0, os.SEEK_END)
        _note_stamp(part, answer)
        _check_space(part, total - begin)
        return _copy(answer, out, begin, total, Path(remote.path).name, progress)


def _copy(answer: Any, out: IO[bytes], done: int, total: int, name: str, progress: Progress) -> bool:
    """Whether all of it came: as many bytes as the server said, or up to its end where it did not say."""
    progress(name, done, total)
    while block := answer.read(CHUNK_BYTES):
        out.write(block)
        done += len(block)
        progress(name, done, total)
    out.flush()
    return done >= total


def _span(answer: Any, have: int) -> tuple[int, int]:
    """The first byte that the answer has, and the bytes of the whole file (0 where the server does not say)."""
    length = answer.headers.get("Content-Length")
    if answer.status != 206:
        return 0, int(length) if length and length.isdigit() else 0
    unit, _, rest = answer.headers.get("Content-Range", "").partition(" ")
    span, _, total = rest.partition("/")
    begin = span.partition("-")[0]
    if unit != "bytes" or not begin.isdigit() or int(begin) != have:
        raise http.client.HTTPException(f"it answers with the range {rest!r}, not from {have}")
    return have, int(total) if total.isdigit() else have + int(length or 0)


def _stamp(part: Path) -> str | None:
    """What the server called the file of which we have a part: without it a part may be that of another file."""
    try:
        found = json.loads(_stamp_file(part).read_bytes())["stamp"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def _note_stamp(part: Path, answer: Any) -> None:
    """ETags that begin with W/ say nothing of bytes."""
    etag = answer.headers.get("ETag")
    stamp = etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")
    _stamp_file(part).write_text(json.dumps({"stamp": stamp}))


def _stamp_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _check_space(part: Path, wanted: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if wanted > free:
        raise OSError(errno.ENOSPC, f"{wanted} bytes are to come, {free} are free")


@contextlib.contextmanager
def _disk(goal: Path) -> Iterator[None]:
    try:
        yield
    except ZeroskipError:
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise ZeroskipError(
                f"get: no space left for {goal} ({error.strerror}); free some, the same command then goes on, or "
                "choose another folder with --to."
            ) from None
        raise ZeroskipError(
            f"get: {goal} cannot be written ({error.strerror or error}); choose another --to."
        ) from None


@contextlib.contextmanager
def _alone(out: IO[bytes], part: Path) -> Iterator[None]:
    """No two processes write the same part."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    try:
        fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ZeroskipError(f"get: another process is writing {part}; wait for it.") from None
    yield


def _drop(part: Path) -> None:
    for path in (part, _stamp_file(part)):
        path.unlink(missing_ok=True)


def _hash_of(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            found.update(block)
    return found.hexdigest()


def _sums(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / CHECKSUMS).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DamagedFile(f"get: {folder / CHECKSUMS} cannot be read ({error}); mend or delete it.") from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise DamagedFile(f"get: {folder / CHECKSUMS} is no list of sums; mend or delete it.")
    return found


def _remember(folder: Path, path: str, digest: str) -> None:
    text = json.dumps({**_sums(folder), path: digest}, indent=1) + "\n"
    scratch = folder / f".{CHECKSUMS}.{os.getpid()}"
    scratch.write_text(text)
    os.replace(scratch, folder / CHECKSUMS)
