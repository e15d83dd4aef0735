"""The state of a distillation on disk: written whole or not at all, and refused where it belongs to another one."""

from __future__ import annotations

import hashlib
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..._errors import DamagedFile, InvalidArgument, ZeroskipError

_KIND = "zeroskip distillation 1"


@dataclass
class Interrupt:
    """Whether somebody pressed Ctrl-C."""

    asked: bool = False


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Turn the first Ctrl-C into a flag, so that the step that runs is finished; the second one interrupts at once.

    In another thread than the main one nothing is changed.
    """
    found = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield found
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        if found.asked:
            raise KeyboardInterrupt
        found.asked = True

    signal.signal(signal.SIGINT, note)
    try:
        yield found
    finally:
        signal.signal(signal.SIGINT, before)


def digest_of_texts(texts: Sequence[str]) -> str:
    """A name for a text."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def digest_of_model(model: Any) -> str:
    """A name for the values of a model."""
    import torch

    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()[:16]


def write_state(path: Path, settings: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Write a checkpoint; whatever was at `path` is there until the new one is complete.

    Raises:
        ZeroskipError: If it cannot be written.
    """
    import torch

    scratch = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            torch.save({"kind": _KIND, "settings": dict(settings), "state": dict(state)}, file)
        os.replace(scratch, path)
        scratch = None
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise ZeroskipError(
            f"distill: cannot write the checkpoint {path} ({' '.join(str(error).split())[:160]}); free space, or pass "
            "another checkpoint."
        ) from error
    finally:
        if scratch is not None:
            Path(scratch).unlink(missing_ok=True)


def read_state(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The state in a checkpoint of the same settings.

    Raises:
        DamagedFile: If it is no checkpoint of a distillation.
        InvalidArgument: If its settings are others; names them.
    """
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch each have their own errors for a damaged file
        reason = " ".join(str(error).split())[:120]
        raise DamagedFile(f"distill: {path} cannot be read as a checkpoint ({reason}); delete it.") from error
    if not isinstance(found, dict) or found.get("kind") != _KIND:
        raise DamagedFile(f"distill: {path} is no checkpoint of a distillation; pass another checkpoint.")
    theirs = found["settings"]
    other = [name for name in {**theirs, **settings} if theirs.get(name) != settings.get(name)]
    if other:
        listed = ", ".join(f"{name} was {theirs.get(name)} and is {settings.get(name)}" for name in other)
        raise InvalidArgument(
            f"distill: the checkpoint {path} is of other settings: {listed}; pass those, or delete it to begin anew."
        )
    state: dict[str, Any] = found["state"]
    return state
