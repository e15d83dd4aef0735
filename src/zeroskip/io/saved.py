"""The saved model: a folder with zeroskip.json, model.safetensors and the tokenizer's own files.

docs/saved-model.md describes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import __version__
from .._errors import DamagedFile, InvalidArgument
from ..formats import DTYPES, GROUPS, INTEGERS
from .fields import Fields, read_fields
from .folder import MANIFEST, is_saved_model, write_folder
from .matrices import Matrix, StoredMatrix, bfloat16_names, dense_tensor, describe, read_matrix, tensors_of
from .tensors import TensorFile, write_tensors

VERSION = 1
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
KINDS = ("encoder", "decoder")
MIXED = "mixed"  # values of a model whose layers differ
_MARK = "zeroskip-model"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HASH_LIMIT_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Manifest:
    """What zeroskip.json holds, apart from sizes and hashes of the files.

    Args:
        kind: `encoder` or `decoder`.
        family: The family whose graph this is; for reports only.
        name: How to call the model.
        values: The value type that was asked for, or `mixed` where layers differ.
        graph: The graph as JSON (`runtime.graph` validates it).
        linears: Format, type and shape of each weight matrix.
        plan: One JSON object a linear layer (`runtime.layerplan` validates them).
        machine: Where the plan was measured.
        text: Settings of tokenising, pooling and generating.
        floor: What a search above a quality floor found (`runtime.floor.report` validates it); None without one.
    """

    kind: str
    family: str
    name: str
    values: str
    graph: Mapping[str, Any]
    linears: Mapping[str, StoredMatrix]
    plan: list[Any]
    machine: Mapping[str, Any]
    text: Mapping[str, Any]
    floor: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class SavedModel:
    """A saved model, opened: the description checked, the tensors mapped and not yet read."""

    folder: Path
    manifest: Manifest
    tensors: TensorFile
    files: Mapping[str, int] = field(default_factory=dict)

    def matrix(self, name: str) -> Matrix:
        """A weight matrix over the mapped file, its layout checked."""
        if name not in self.manifest.linears:
            raise DamagedFile(f"load: {self.folder}: matrix {name!r} is not in {MANIFEST}; save the model again.")
        return read_matrix(self.tensors, name, self.manifest.linears[name])

    def dense(self, name: str) -> npt.NDArray[Any]:
        """A dense tensor over the mapped file; bfloat16 as uint16."""
        return dense_tensor(self.tensors, name)

    def read_file(self, name: str) -> bytes:
        """A file that zeroskip.json lists, its hash checked on opening."""
        if name not in self.files:
            raise DamagedFile(f"load: {self.folder}: {name!r} is not listed in {MANIFEST}; save the model again.")
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            raise DamagedFile(f"load: {self.folder / name} cannot be read ({error.strerror}).") from None


def save(
    folder: str | os.PathLike[str],
    manifest: Manifest,
    *,
    matrices: Mapping[str, Matrix],
    tensors: Mapping[str, npt.NDArray[Any]],
    files: Mapping[str, bytes],
    overwrite: bool = False,
) -> Path:
    """Write a saved model, whole or not at all.

    Args:
        folder: Where to; see `write_folder` for what may be replaced.
        manifest: What zeroskip.json says; its `linears` are taken from `matrices`.
        matrices: Weight matrices by name.
        tensors: Everything else by name: float32, float16, or bfloat16 as uint16.
        files: Other files by name: the tokenizer's.
    """
    for name in files:
        _check_name(name, f"save: {folder}", InvalidArgument)

    stored = {name: describe(matrix, tensors) for name, matrix in matrices.items()}

    def fill(work: Path) -> None:
        arrays: dict[str, npt.NDArray[Any]] = dict(tensors)
        bfloat16 = {name for name, array in tensors.items() if array.dtype == np.uint16}
        for name, matrix in matrices.items():
            if stored[name].tied is None:
                arrays.update(tensors_of(name, matrix))
                bfloat16 |= bfloat16_names(name, matrix)
        write_tensors(work / WEIGHTS, arrays, bfloat16=bfloat16, metadata={"format": _MARK})
        for name, content in files.items():
            (work / name).write_bytes(content)
        listed = {name: _fingerprint(work / name) for name in [WEIGHTS, *files]}
        text = json.dumps(_as_json(manifest, stored, listed), indent=1, ensure_ascii=False, allow_nan=False)
        (work / MANIFEST).write_text(text + "\n", encoding="utf-8")

    return write_folder(folder, fill, overwrite=overwrite)


def open_saved(folder: str | os.PathLike[str], *, verify: bool = False, mapped: bool = True) -> SavedModel:
    """Open a saved model.

    Args:
        folder: The folder.
        mapped: Whether the weights are mapped, else read.
        verify: Whether to compare the hash of the weights too, which reads all of them. Sizes and the hashes of small
            files are always compared.
    Raises:
        InvalidArgument: If there is no saved model.
        DamagedFile: If any part of it is damaged, or says something untrue.
    """
    home = Path(folder).expanduser()
    if not is_saved_model(home):
        raise InvalidArgument(
            f"load: {home} is no compiled model, it has no {MANIFEST}; pass a folder that `zeroskip compile` wrote."
        )
    fields = read_fields(home / MANIFEST)
    fields.choice("format", (_MARK,))
    version = fields.integer("version")
    if version != VERSION:
        raise DamagedFile(f"load: {home} has format version {version}, this zeroskip reads {VERSION}; update zeroskip.")
    files = _check_files(home, fields.child("files"), verify)
    return SavedModel(home, _manifest_of(fields), TensorFile(home / WEIGHTS, mapped=mapped), files)


def _as_json(manifest: Manifest, stored: Mapping[str, StoredMatrix], files: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": _MARK,
        "version": VERSION,
        "zeroskip": __version__,
        "kind": manifest.kind,
        "family": manifest.family,
        "name": manifest.name,
        "values": manifest.values,
        "text": dict(manifest.text),
        "machine": dict(manifest.machine),
        **({} if manifest.floor is None else {"floor": dict(manifest.floor)}),
        "files": dict(files),
        "linears": {name: matrix.as_json() for name, matrix in stored.items()},
        "plan": manifest.plan,
        "graph": dict(manifest.graph),
    }


def _manifest_of(fields: Fields) -> Manifest:
    linears = fields.child("linears")
    plan = fields.raw("plan")
    if not isinstance(plan, list):
        raise fields.wrong("plan", "a list")
    return Manifest(
        kind=fields.choice("kind", KINDS),
        family=fields.text("family", limit=200),
        name=fields.text("name", limit=1000),
        values=fields.choice("values", (*DTYPES, MIXED)),
        graph=dict(fields.child("graph").items()),
        linears={name: _stored_of(linears.child(name)) for name, _ in linears.items()},
        plan=plan,
        machine=dict(fields.child("machine").items()),
        text=dict(fields.child("text").items()),
        floor=dict(fields.child("floor").items()) if "floor" in fields else None,
    )


def _stored_of(fields: Fields) -> StoredMatrix:
    shape = fields.integers("shape", low=1, limit=2)
    if len(shape) != 2:
        raise fields.wrong("shape", "two sizes")
    params = {key: _param(fields, value) for key, value in fields.child("params").items()}
    dtype = fields.choice("dtype", DTYPES)
    format = fields.text("format", limit=100)
    bits = fields.optional_integer("position_bits", 1, 8)
    tied = fields.optional_text("tied")
    stored = StoredMatrix((shape[0], shape[1]), format, dtype, params, tied, position_bits=bits)
    if dtype not in INTEGERS:
        return stored
    group = fields.integer("group", high=max(GROUPS))
    if group not in GROUPS:
        raise fields.wrong("group", f"one of {', '.join(map(str, GROUPS))}")
    return replace(stored, group=group, symmetric=fields.flag("symmetric"))


def _param(fields: Fields, value: Any) -> Any:
    whole = value if isinstance(value, list) else [value]
    if len(whole) > 4 or not all(type(item) is int and 0 < item < 2**31 for item in whole):
        raise fields.wrong("params", "sizes of the format")
    return value


def _check_files(home: Path, listed: Fields, verify: bool) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, _ in listed.items():
        _check_name(name, f"load: {home}", DamagedFile)
        entry = listed.child(name)
        wanted, digest = entry.integer("bytes", 0, 2**62), entry.text("sha256", limit=64)
        path = home / name
        size = path.stat().st_size if path.is_file() else -1
        if size != wanted:
            state = f"has {size} bytes" if size >= 0 else "is missing"
            raise DamagedFile(f"load: {path} {state}, {MANIFEST} says {wanted} bytes; copy the model again.")
        if (verify or size <= _HASH_LIMIT_BYTES) and _digest(path) != digest:
            raise DamagedFile(f"load: {path} has another sha256 than {MANIFEST} says; copy the model again.")
        found[name] = size
    if WEIGHTS not in found:
        raise DamagedFile(f"load: {home / MANIFEST} does not list {WEIGHTS}; save the model again.")
    return found


def _check_name(name: str, where: str, error: type[DamagedFile] | type[InvalidArgument]) -> None:
    if not _PLAIN_NAME.fullmatch(name) or name == MANIFEST:
        raise error(f"{where}: file name {name!r} is not a plain name of its own inside the folder; rename the file.")


def _fingerprint(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": _digest(path)}


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    except OSError as error:
        raise DamagedFile(f"load: {path} cannot be read ({error.strerror}); copy the model again.") from None
    return digest.hexdigest()
