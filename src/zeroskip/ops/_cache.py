"""What earlier runs measured, kept on disk: a matrix like one that was measured here before is not measured again.

One JSON file in the cache folder, `choices.json`. Its keys are hashes of everything that a measurement depends on (the
caller's part, and the processor, instruction set, threads, versions and the native module itself), so a file that came
from another machine or an older build simply holds nothing that is asked for. It is read when it is first needed, and
written after a compilation and when the process ends, whole and under another name first. What is not ours or damaged
is not believed: one warning, and the next writing replaces it.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib
import json
import logging
import os
import platform
import tempfile
import threading
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import ZeroskipError

SCHEMA, VERSION = "zeroskip.choices", 1
FILE = "choices.json"
# Oldest entries go first. 2000 entries of a dozen kernels take about 2 MB.
MOST_ENTRIES = 2000
MOST_BYTES = 16 * 2**20

Json = Any
_log = logging.getLogger("zeroskip")


def folder() -> Path | None:
    """Where the file lies: `ZEROSKIP_CACHE_DIR`, else the user's cache folder; None where it is switched off."""
    chosen = os.environ.get("ZEROSKIP_CACHE_DIR")
    if chosen is not None:
        return Path(chosen) if chosen else None
    return user_folder()


def user_folder() -> Path | None:
    """The user's cache folder, whatever `ZEROSKIP_CACHE_DIR` says; None where there is no home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zeroskip"
    except RuntimeError:  # no home
        return None


def cache_dir() -> Path:
    """Where files that are unpacked or fetched are kept: beside the measurements, else in the user's cache folder.

    Raises:
        ZeroskipError: If there is neither.
    """
    found = folder() or user_folder()
    if found is None:
        raise ZeroskipError("zeroskip: there is no home folder to keep files in; set ZEROSKIP_CACHE_DIR.")
    return found


def recall(key: Mapping[str, Json], *, budget_s: float) -> Json | None:
    """What was remembered under `key`, if at least half of `budget_s` had been there to measure it; else None."""
    store = _store()
    found = store.entries().get(_hash(key)) if store is not None else None
    return found["value"] if found is not None and found["budget_s"] >= 0.5 * budget_s else None


def remember(key: Mapping[str, Json], value: Json, *, budget_s: float) -> None:
    """Keep `value`, which is JSON-able, under `key`; on disk from the next `flush` on."""
    store = _store()
    if store is not None:
        store.put(_hash(key), {"when": int(time.time()), "budget_s": budget_s, "value": value})


def flush() -> None:
    """Write what is new. A folder that cannot be written costs one warning and nothing else."""
    with _lock:
        for store in _stores.values():
            store.flush()


def forget() -> None:
    """Drop what is held in memory, written or not."""
    with _lock:
        _stores.clear()


def describe() -> dict[str, Json]:
    """The folder, and how many entries and bytes the file has; for `zeroskip doctor`."""
    where, store = folder(), _store()
    found: dict[str, Json] = {"folder": None if where is None else str(where), "entries": 0, "nbytes": 0}
    if where is not None and store is not None:
        with contextlib.suppress(OSError):
            found["nbytes"] = (where / FILE).stat().st_size
            found["entries"] = len(store.entries())
    return found


class _Store:
    """The file of one folder, and what this process adds to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, dict[str, Json]] | None = None
        self._fresh: dict[str, dict[str, Json]] = {}
        self._warned = False

    def entries(self) -> dict[str, dict[str, Json]]:
        if self._entries is None:
            self._entries = {**self._read(), **self._fresh}
        return self._entries

    def put(self, name: str, entry: dict[str, Json]) -> None:
        with _lock:
            self.entries()[name] = self._fresh[name] = entry

    def flush(self) -> None:
        if not self._fresh:
            return
        merged = {**self._read(), **self._fresh}  # read again: another process may have written meanwhile
        newest = sorted(merged.items(), key=lambda item: item[1]["when"])[-MOST_ENTRIES:]
        text = json.dumps({"schema": SCHEMA, "version": VERSION, "entries": dict(newest)}, separators=(",", ":"))
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _replace(self._path, text)
        except OSError as error:
            self._warn(f"cannot write {self._path} ({error}); measurements are kept for this process only")
        self._fresh = {}

    def _read(self) -> dict[str, dict[str, Json]]:
        try:
            if self._path.stat().st_size > MOST_BYTES:
                raise ValueError(f"it has more than {MOST_BYTES >> 20} MiB")
            return _entries_of(json.loads(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, no JSON, or not as we write it
            self._warn(f"{self._path} is no readable list of measurements ({error}); measuring anew and replacing it")
            return {}

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("zeroskip cache: %s.", text)


def _entries_of(document: Json) -> dict[str, dict[str, Json]]:
    """The entries of a file.

    Raises:
        ValueError: If it is not one of ours.
    """
    if not isinstance(document, dict) or document.get("schema") != SCHEMA or document.get("version") != VERSION:
        raise ValueError(f"its schema is not {SCHEMA} {VERSION}")
    entries = document.get("entries")
    if not isinstance(entries, dict) or not all(_whole(entry) for entry in entries.values()):
        raise ValueError("its entries are damaged")
    return entries


def _whole(entry: Json) -> bool:
    return (
        isinstance(entry, dict)
        and all(isinstance(entry.get(name), int | float) for name in ("when", "budget_s"))
        and "value" in entry
    )


def _replace(path: Path, text: str) -> None:
    """Write `path` whole or not at all."""
    handle, scratch = tempfile.mkstemp(prefix=".choices-", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        raise


_stores: dict[Path, _Store] = {}
_lock = threading.RLock()
atexit.register(flush)


def _store() -> _Store | None:
    where = folder()
    if where is None:
        return None
    with _lock:
        return _stores.setdefault(where / FILE, _Store(where / FILE))


def _hash(key: Mapping[str, Json]) -> str:
    text = json.dumps({**key, "machine": {**_machine(), "threads": _threads()}}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@cache
def _machine() -> dict[str, Json]:
    """What a measurement depends on besides the matrix, except what may change within a process."""
    version = importlib.import_module("zeroskip").__version__
    found: dict[str, Json] = {"zeroskip": version, "numpy": np.__version__, "arch": platform.machine()}
    try:
        native: Any = importlib.import_module("zeroskip._native")
    except ImportError:
        return found
    info = native.cpu_info()
    code = hashlib.sha256(Path(native.__file__).read_bytes()).hexdigest()
    return {**found, "model_name": info["model_name"], "selected": info["selected"], "native": code}


def _threads() -> int:
    try:
        return int(importlib.import_module("zeroskip._native").get_num_threads())
    except ImportError:
        return 0
