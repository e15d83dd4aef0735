"""Archives of `.smtx` files: what is in one, without unpacking it; and unpacking it once, with suspicion."""

from __future__ import annotations

import contextlib
import hashlib
import json
import lzma
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from .._errors import DamagedFile, ZeroskipError
from ..ops._cache import cache_dir
from .io.smtx import read_head

# The whole collection has about 3000 files; unpacked they take less than 4 GB.
MOST_FILES, MOST_BYTES = 20_000, 8 * 2**30


@dataclass(frozen=True)
class Member:
    """A `.smtx` file of an archive, or of a folder."""

    name: str
    shape: tuple[int, int]
    nnz: int


def members(source: Path) -> list[Member]:
    """The `.smtx` files of an archive or folder, sorted by name; an archive is read through once and then remembered.

    Raises:
        DamagedFile: If it is no archive, has a name that leads out of it, or a file in it has no header.
    """
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*.smtx") if path.is_file())
        return [Member(path.relative_to(source).as_posix(), *_head(path)) for path in paths]
    index = cache_dir() / f"index-{_key(source)}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return [Member(str(name), (int(m), int(k)), int(nnz)) for name, m, k, nnz in json.loads(index.read_bytes())]
    found = []
    with _readable(source):
        for name, file in _files(source):
            found.append(Member(name, *read_head(file.read(4096), f"{source}, {name}")))
    found.sort(key=lambda member: member.name)
    text = json.dumps([[one.name, *one.shape, one.nnz] for one in found])
    with contextlib.suppress(OSError):  # an index that cannot be kept is made again
        index.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=index.parent, prefix=".index-", delete=False) as out:
            out.write(text)
        Path(out.name).replace(index)
    return found


def folder_of(source: Path) -> Path:
    """The folder with the files of an archive, unpacked into the cache folder if it is not there yet."""
    if source.is_dir():
        return source
    target = cache_dir() / f"unpacked-{_key(source)}"
    if not target.is_dir():
        unpack(source, target)
    return target


def unpack(archive: Path, target: Path) -> None:
    """The `.smtx` files of an archive, into a folder beside `target` that is renamed when complete.

    Raises:
        DamagedFile: If it is no archive, or has a name that leads out of the folder.
        ZeroskipError: If the disk does not take it.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".unpack-", dir=target.parent))
    except OSError as error:
        raise ZeroskipError(f"data: cannot write to {target.parent}: {error}; set ZEROSKIP_CACHE_DIR.") from error
    try:
        with _readable(archive):
            for name, file in _files(archive):
                place = scratch / name
                place.parent.mkdir(parents=True, exist_ok=True)
                with open(place, "xb") as out:
                    shutil.copyfileobj(file, out)
        try:
            scratch.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was faster, with the same content
                raise
    except OSError as error:
        raise ZeroskipError(f"data: cannot unpack to {target}: {error}; free space or check the file.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _key(source: Path) -> str:
    """Changes with the file: its place, size and time, since a sum over gigabytes takes too long to ask each time."""
    state = source.stat()
    return hashlib.sha256(f"{source.resolve()} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()[:16]


def _head(path: Path) -> tuple[tuple[int, int], int]:
    with path.open("rb") as file:
        return read_head(file.read(4096), str(path))


@contextlib.contextmanager
def _readable(archive: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DamagedFile(f"{archive}: it cannot be unpacked ({reason}); get the file again.") from error
    except OSError as error:
        if error.errno is None:  # gzip's own: no gzip file, or a sum that is wrong
            raise DamagedFile(f"{archive}: it cannot be unpacked ({error}); get the file again.") from error
        raise


def _files(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Ordinary `.smtx` files with a name below the archive, and not without end."""
    count, size = 0, 0
    with tarfile.open(archive) as every:
        for member in every:
            if not member.isfile() or not member.name.endswith(".smtx"):
                continue
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts:
                raise DamagedFile(f"{archive}: member {member.name!r} leads out of the folder; get the file again.")
            count, size = count + 1, size + member.size
            file = every.extractfile(member)
            if file is None or count > MOST_FILES or size > MOST_BYTES:
                raise DamagedFile(f"{archive}: member {member.name!r} is one too many or too much; get the file again.")
            with file:
                yield name.as_posix(), file
