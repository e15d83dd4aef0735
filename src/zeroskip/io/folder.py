"""Folders and files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from .._errors import InvalidArgument, ZeroskipError

MANIFEST = "zeroskip.json"


def write_folder(target: str | os.PathLike[str], fill: Callable[[Path], None], *, overwrite: bool = False) -> Path:
    """Fill a temporary folder beside `target`, flush it, and rename it into place.

    An interruption at any moment, Ctrl-C included, leaves what was at `target` whole and no temporary folder behind;
    only a lost process (power, SIGKILL) can leave the temporary one, `.NAME.tmp-*`, which may be deleted.

    Args:
        target: The folder. It must not exist, or be empty; a saved model there is replaced if `overwrite`.
        fill: Writes the files into the folder it is given.
        overwrite: Whether a saved model may be replaced. Any other folder with files in it is always refused.
    Raises:
        InvalidArgument: If `target` may not be replaced.
        ZeroskipError: If the disk is full or refuses.
    """
    goal = Path(target).expanduser().absolute()
    _check_target(goal, overwrite)
    work = goal.parent / f".{goal.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        goal.parent.mkdir(parents=True, exist_ok=True)
        work.mkdir()
        fill(work)
        for file in [*work.iterdir(), work]:
            _flush(file)
        _into_place(work, goal)
        _flush(goal.parent)
    except OSError as error:
        raise ZeroskipError(
            f"save: {goal} cannot be written ({error.strerror or error}); free some space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return goal


def write_file(target: str | os.PathLike[str], content: bytes) -> Path:
    """Write a temporary file beside `target`, flush it, and rename it into place.

    An interruption leaves what was at `target` whole and no temporary file behind.

    Raises:
        ZeroskipError: If the disk is full or refuses.
    """
    goal = Path(target).expanduser().absolute()
    work = goal.parent / f".{goal.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        goal.parent.mkdir(parents=True, exist_ok=True)
        with open(work, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(work, goal)
    except OSError as error:
        raise ZeroskipError(
            f"write: {goal} cannot be written ({error.strerror or error}); free some space or choose another folder."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            work.unlink(missing_ok=True)
    return goal


def is_saved_model(folder: Path) -> bool:
    """Whether a folder holds a compiled model."""
    return (folder / MANIFEST).is_file()


def _check_target(goal: Path, overwrite: bool) -> None:
    if not goal.exists() and not goal.is_symlink():
        return
    if not goal.is_dir():
        raise InvalidArgument(f"save: {goal} is a file, a model is saved as a folder; choose another name.")
    if not any(goal.iterdir()):
        return
    if not is_saved_model(goal):
        raise InvalidArgument(f"save: {goal} holds files that are no compiled model; choose a new or empty folder.")
    if not overwrite:
        raise InvalidArgument(
            f"save: {goal} holds a compiled model already; pass overwrite=True to replace it, or choose another folder."
        )


def _into_place(work: Path, goal: Path) -> None:
    """Rename `work` to `goal`; what was at `goal` ends up at `work`, which the caller deletes."""
    if not goal.exists():
        work.rename(goal)
    elif not _exchange(work, goal):
        old = work.with_name(work.name + ".old")
        goal.rename(old)
        try:
            work.rename(goal)
        except BaseException:
            old.rename(goal)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two paths in one step, where the system can (Linux)."""
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(AttributeError, OSError):
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
        return int(rename(here, os.fsencode(a), here, os.fsencode(b), ctypes.c_uint(swap))) == 0
    return False


def _flush(path: Path) -> None:
    """fsync a file or folder; folders cannot be flushed everywhere."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        if path.is_file():
            raise
    finally:
        os.close(handle)
