"""Safetensors files: a header that is read with suspicion, tensors that stay mapped.

A parser of our own because the file is untrusted, bfloat16 has no NumPy dtype, and nothing may be copied: every tensor
is a read-only view of one memory map.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._errors import DamagedFile, DtypeError

Array = npt.NDArray[Any]

HEADER_LIMIT_BYTES = 100_000_000
_NUMPY = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_CODES = {np.dtype(kind).str: code for code, kind in _NUMPY.items() if code != "BF16"}


class Entry(NamedTuple):
    """Where one tensor lies: its code in the file, its shape, and the bytes [begin, end) after the header."""

    code: str
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorFile:
    """A safetensors file, mapped.

    Args:
        path: The file.
        mapped: Whether tensors are views of the mapped file; else the file is read, and what happens to it afterwards
            does not matter.
    Raises:
        DamagedFile: If the header lies: lengths, types, shapes, offsets that overlap, leave holes or leave the file.
    """

    def __init__(self, path: str | os.PathLike[str], *, mapped: bool = True) -> None:
        self.path = Path(path)
        try:
            size = self.path.stat().st_size
            with self.path.open("rb") as file:
                start = self._header_bytes(file.read(8), size)
                text = file.read(start - 8)
        except OSError as error:
            raise DamagedFile(f"load: {self.path} cannot be read ({error.strerror}); copy the model again.") from None
        self.entries, self.metadata = _parse(self.path, text, size - start)
        if not mapped:
            self._bytes: Array = self._read(start, size - start)
            return
        # A plain view: slices of a memmap object each cost microseconds in its bookkeeping.
        whole = (
            np.asarray(np.memmap(self.path, dtype=np.uint8, mode="r")) if size > start else np.zeros(start, np.uint8)
        )
        self._bytes = whole[start:]

    def _read(self, start: int, nbytes: int) -> Array:
        found = np.empty(nbytes, dtype=np.uint8)
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(start)
                view, done = found.data, 0
                while done < nbytes and (more := file.readinto(view[done:])):
                    done += more
        except OSError as error:
            raise DamagedFile(f"load: {self.path} cannot be read ({error.strerror}); copy the model again.") from None
        if done < nbytes:
            raise DamagedFile(f"load: {self.path} became shorter while it was read; load it again.")
        found.flags.writeable = False
        return found

    def _header_bytes(self, head: bytes, size: int) -> int:
        length = int.from_bytes(head, "little")
        if len(head) < 8 or length > min(size - 8, HEADER_LIMIT_BYTES):
            raise DamagedFile(
                f"load: {self.path} has {size} bytes and a header length of {length}, the header must lie in the file "
                f"and below {HEADER_LIMIT_BYTES} bytes; copy the file again."
            )
        return 8 + length

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return int(self._bytes.size)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def names(self) -> list[str]:
        return list(self.entries)

    def code(self, name: str) -> str:
        """The type of a tensor as the file writes it: `F32`, `BF16`, `U8`, ..."""
        return self._entry(name).code

    def array(self, name: str) -> Array:
        """A read-only view of one tensor; uint16 bit patterns where the file has bfloat16."""
        entry = self._entry(name)
        view = self._bytes[entry.begin : entry.end]
        kind = np.dtype(_NUMPY[entry.code])
        if entry.code == "BOOL":
            return view.astype(np.bool_).reshape(entry.shape)
        if view.size and view.ctypes.data % kind.itemsize:
            view = view.copy()  # other writers do not align; ours does
        found: Array = np.asarray(view).view(kind).reshape(entry.shape)
        return found

    def _entry(self, name: str) -> Entry:
        if name not in self.entries:
            raise DamagedFile(f"load: {self.path} has no tensor {name!r}, the model needs it; save the model again.")
        return self.entries[name]


def _parse(path: Path, text: bytes, payload: int) -> tuple[dict[str, Entry], dict[str, str]]:
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"load: {path} has a header that is not JSON ({error}); copy the file again.") from None
    if not isinstance(header, dict):
        raise DamagedFile(f"load: {path} has a header that is not a JSON object; copy the file again.")
    metadata = header.pop("__metadata__", {})
    entries = {name: _entry_of(path, name, item, payload) for name, item in header.items()}
    at = 0
    for name, entry in sorted(entries.items(), key=lambda pair: (pair[1].begin, pair[1].end)):
        if entry.begin != at:
            what = "overlaps the tensor before it" if entry.begin < at else "leaves a hole before it"
            raise DamagedFile(f"load: {path}: tensor {name!r} begins at {entry.begin} and {what}; copy the file again.")
        at = entry.end
    if at != payload:
        raise DamagedFile(f"load: {path} holds {payload} bytes of tensors, its header says {at}; copy the file again.")
    return entries, metadata if isinstance(metadata, dict) else {}


def _entry_of(path: Path, name: str, item: Any, payload: int) -> Entry:
    def bad(what: str) -> DamagedFile:
        return DamagedFile(f"load: {path}: tensor {name!r} {what}; copy the file again.")

    if not isinstance(item, dict) or set(item) != {"dtype", "shape", "data_offsets"}:
        raise bad("is not described by dtype, shape and data_offsets")
    code, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
    if not isinstance(code, str) or code not in _NUMPY:
        raise bad(f"has dtype {code!r}, which is not one of {', '.join(_NUMPY)}")
    if not isinstance(shape, list) or len(shape) > 8 or not all(_is_size(size) for size in shape):
        raise bad("has a shape that is no list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(at) for at in offsets):
        raise bad("has data_offsets that are no pair of positions")
    begin, end = offsets
    if not begin <= end <= payload:
        raise bad(f"lies at [{begin}, {end}), outside the {payload} bytes there are")
    if prod(shape) * np.dtype(_NUMPY[code]).itemsize != end - begin:
        raise bad(f"has {end - begin} bytes, which is not what {code} {shape} takes")
    return Entry(code, tuple(shape), begin, end)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Array],
    *,
    bfloat16: frozenset[str] | set[str] = frozenset(),
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a safetensors file and flush it to the disk.

    Widest types come first, so that each tensor is aligned to its own size; safetensors allows no padding between.

    Args:
        path: The file; replaced if it exists.
        tensors: Arrays by name.
        bfloat16: Names of those uint16 arrays that hold bfloat16.
        metadata: Strings for the header.
    """
    ordered = sorted(tensors.items(), key=lambda pair: (-pair[1].dtype.itemsize, pair[0]))
    header: dict[str, Any] = {"__metadata__": dict(metadata or {})}
    at = 0
    for name, array in ordered:
        code = "BF16" if name in bfloat16 else _CODES.get(array.dtype.str)
        if code is None:
            raise DtypeError(
                f"save: tensor {name!r} has dtype {array.dtype}, which safetensors cannot hold; convert it."
            )
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)  # tensors begin at a cache line
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for _, array in ordered:
            if array.size:
                file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
