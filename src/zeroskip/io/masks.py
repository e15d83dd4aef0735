"""Masks of attention as files: a folder of them with an index, long ones as rules, and what reads one back.

    masks.json              what there is: kind, sizes, sparsity, entries, seed, SHA-256 of each file
    window_1024_90.smtx     entries, as the Deep Learning Matrix Collection stores patterns; or .npz, as SciPy does
    window_65536_90.json    a long one: its rule, or the call that makes it

Every file is written whole or not at all, and the index after each, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._errors import DamagedFile, InvalidArgument
from ..datasets.io.npz import UNREADABLE, read_arrays, structure_of
from ..datasets.io.smtx import format_smtx, read_smtx
from ..datasets.masks import KINDS, LENGTHS, SPARSITIES
from ..formats import CSR
from ..sparsify.attention import Mask, Rule, make, registry, rule, rule_mask, rule_nnz
from .folder import write_file

INDEX, VERSION = "masks.json", 1
FORMATS = ("smtx", "npz")

# A damaged number must not ask for all memory: counts are kept for every query.
_LONGEST = 2**24

_RULE, _INDEX = "mask rule", "masks"
Json = dict[str, Any]


@dataclass(frozen=True)
class MaskFile:
    """One mask of the folder.

    Args:
        kind: A name of `sparsify.attention.registry`.
        length: Queries, and keys.
        sparsity: Asked for.
        seed: Of what is drawn.
        suffix: `smtx` or `npz` for entries, `json` for a rule.
    """

    kind: str
    length: int
    sparsity: float
    seed: int = 0
    suffix: str = "smtx"

    @property
    def name(self) -> str:
        """Its file, named as `window_1024_90.smtx`, the sparsity in percent."""
        return f"{self.kind}_{self.length}_{round(self.sparsity * 100, 6):g}.{self.suffix}"


@dataclass(frozen=True)
class StoredRule:
    """A mask that its file does not hold the entries of.

    Args:
        kind: A name of `sparsify.attention.registry`.
        queries: Of the mask.
        keys: Of the mask.
        nnz: Entries.
        seed: Of what is drawn.
        sparsity: Asked for; a rule may be a little sparser.
        rule: What the mask is; None where entries are drawn, which `make` then does.
    """

    kind: str
    queries: int
    keys: int
    nnz: int
    seed: int
    sparsity: float
    rule: Rule | None

    def make(self) -> Mask:
        """The entries: of a kind that draws, from its sparsity and seed."""
        if self.rule is not None:
            return rule_mask(self.rule, self.queries, self.keys)
        return make(self.kind, self.queries, self.keys, sparsity=self.sparsity, seed=self.seed)


def survey_masks(
    *,
    kinds: Sequence[str] = KINDS,
    lengths: Sequence[int] = LENGTHS,
    long: Sequence[int] = (),
    sparsities: Sequence[float] = SPARSITIES,
    seed: int = 0,
    suffix: str = "smtx",
) -> list[MaskFile]:
    """The masks of every kind, length and sparsity: by default the 84 of the survey. `long` ones are rules."""
    if suffix not in FORMATS:
        raise InvalidArgument(f"masks: format is {suffix!r}; choose one of: {', '.join(FORMATS)}.")
    sizes = [*((length, suffix) for length in lengths), *((length, "json") for length in long)]
    return [MaskFile(kind, length, s, seed, form) for length, form in sizes for kind in kinds for s in sparsities]


def write_masks(
    folder: str | Path, wanted: Sequence[MaskFile], *, progress: Callable[[str, int, int], None] = lambda *_: None
) -> Json:
    """Make what is not there yet.

    Masks that the index of the folder lists, and whose files are as it says, stay; others that it lists stay listed.

    Args:
        folder: Made if it is not there.
        wanted: Two must not have the same name.
        progress: Called as `("masks", done, of all)`.
    Returns:
        The index, as written.
    Raises:
        InvalidArgument: If a kind cannot have a sparsity, before anything is written; or a file of such a name is there
            that is another mask, or none.
        DamagedFile: If the index of the folder is none.
        ZeroskipError: If the disk is full or refuses.
    """
    root = Path(folder).expanduser()
    listed = _listed(root)
    for one in wanted:
        registry.get(one.kind).entries(one.length, one.length, sparsity=one.sparsity)
        _check_place(root, one, listed.get(one.name))
    for done, one in enumerate(wanted):
        progress("masks", done, len(wanted))
        if _is_there(root, listed.get(one.name)):
            continue
        content, entry = _made(one)
        _check_same(root / one.name, content)
        write_file(root / one.name, content)
        listed[one.name] = entry
        write_file(root / INDEX, _index_bytes(listed))
    progress("masks", len(wanted), len(wanted))
    return _index(listed)


def read_mask(path: str | Path) -> CSR | StoredRule:
    """What a `.smtx`, `.npz` or `.json` file of a mask holds.

    Raises:
        DamagedFile: If it cannot be read, or its parts contradict each other.
        InvalidArgument: If it is a file of another kind.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], CSR | StoredRule]] = {".smtx": _smtx, ".npz": _npz, ".json": _stored_rule}
    if path.suffix not in readers:
        raise InvalidArgument(f"{path}: its name does not end in {', '.join(readers)}; pass one that does.")
    return readers[path.suffix](path)


def _made(one: MaskFile) -> tuple[bytes, Json]:
    """The bytes of a file, and its entry of the index."""
    rule_of: Rule | None = None
    if one.suffix == "json":
        rule_of = _rule_for(one)
        nnz = (
            registry.get(one.kind).entries(one.length, one.length, sparsity=one.sparsity)
            if rule_of is None
            else rule_nnz(rule_of, one.length, one.length)
        )
        content = _rule_bytes(one, nnz, rule_of)
    else:
        mask = make(one.kind, one.length, one.length, sparsity=one.sparsity, seed=one.seed)
        assert isinstance(mask, CSR)
        nnz = mask.nnz
        content = format_smtx(mask.shape, mask.indptr, mask.indices) if one.suffix == "smtx" else _npz_bytes(mask)
    entry: Json = {
        "file": one.name,
        "kind": one.kind,
        "length": one.length,
        "sparsity": one.sparsity,
        "nnz": nnz,
        "seed": one.seed,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return content, entry


def _rule_for(one: MaskFile) -> Rule | None:
    """The rule of a mask that can be made; None for a kind that draws."""
    try:
        return rule(one.kind, one.length, one.length, sparsity=one.sparsity)
    except InvalidArgument:
        return None


def _check_place(root: Path, one: MaskFile, entry: Json | None) -> None:
    """Refuse to write over a mask of another seed or sparsity."""
    if entry is None:
        return
    for name in ("kind", "length", "sparsity", "seed"):
        if entry[name] != getattr(one, name):
            raise InvalidArgument(
                f"masks: {root / one.name} has {name} {entry[name]!r}, {getattr(one, name)!r} is asked for; choose "
                "another folder, or delete that file and its index."
            )


def _is_there(root: Path, entry: Json | None) -> bool:
    if entry is None:
        return False
    try:
        found = hashlib.sha256((root / str(entry["file"])).read_bytes()).hexdigest()
    except OSError:
        return False
    return bool(found == entry["sha256"])


def _check_same(path: Path, content: bytes) -> None:
    """A file that no index lists may stand there only if it is what would be written: a run was cut off behind it."""
    if path.exists() and not (path.is_file() and path.read_bytes() == content):
        raise InvalidArgument(
            f"masks: {path} is there and is not the mask that is asked for; choose another folder, or delete it."
        )


def _index(listed: dict[str, Json]) -> Json:
    return {"zeroskip": _INDEX, "version": VERSION, "masks": list(listed.values())}


def _index_bytes(listed: dict[str, Json]) -> bytes:
    return (json.dumps(_index(listed), indent=1, allow_nan=False) + "\n").encode()


_FIELDS: dict[str, type | tuple[type, ...]] = {
    "file": str,
    "kind": str,
    "length": int,
    "sparsity": (int, float),
    "nnz": int,
    "seed": int,
    "bytes": int,
    "sha256": str,
}


def _listed(root: Path) -> dict[str, Json]:
    """The entries of the index of a folder, by file."""
    if root.exists() and not root.is_dir():
        raise InvalidArgument(f"masks: {root} is a file, masks are written to a folder; choose another name.")
    if not (root / INDEX).exists():
        return {}
    index = _json(root / INDEX, _INDEX)
    masks = index.get("masks")
    entries: list[Any] = masks if isinstance(masks, list) else [None]
    for entry in entries:
        good = isinstance(entry, dict) and all(isinstance(entry.get(name), kind) for name, kind in _FIELDS.items())
        if not good or Path(entry["file"]).name != entry["file"]:
            raise DamagedFile(f"{root / INDEX}: an entry lacks a field or has a wrong one; delete it, or the folder.")
    return {str(entry["file"]): entry for entry in entries}


def _rule_bytes(one: MaskFile, nnz: int, rule_of: Rule | None) -> bytes:
    document = {
        "zeroskip": _RULE,
        "version": VERSION,
        "kind": one.kind,
        "queries": one.length,
        "keys": one.length,
        "nnz": nnz,
        "seed": one.seed,
        "sparsity": one.sparsity,
        "rule": None if rule_of is None else asdict(rule_of),
    }
    return (json.dumps(document, indent=1, allow_nan=False) + "\n").encode()


def _stored_rule(path: Path) -> StoredRule:
    found = _json(path, _RULE)
    try:
        numbers = {name: found[name] for name in ("queries", "keys", "nnz", "seed")}
        if not all(type(value) is int for value in numbers.values()):
            raise TypeError("queries, keys, nnz and seed are whole numbers")
        if not 1 <= max(numbers["queries"], numbers["keys"]) <= _LONGEST:
            raise ValueError(f"it is {numbers['queries']} x {numbers['keys']}, masks have up to {_LONGEST} of each")
        given = found["rule"]
        kind = str(found["kind"])
        stored = StoredRule(
            kind=kind, sparsity=float(found["sparsity"]), rule=None if given is None else Rule(**given), **numbers
        )
        if stored.rule is None:
            nnz = registry.get(kind).entries(stored.queries, stored.keys, sparsity=stored.sparsity)
        else:
            nnz = rule_nnz(stored.rule, stored.queries, stored.keys)
    except (KeyError, TypeError, ValueError) as error:  # among them what zeroskip refuses
        raise DamagedFile(f"{path}: it is no rule of a mask ({error}); make it again.") from None
    if nnz != stored.nnz:
        raise DamagedFile(f"{path}: it says that it has {stored.nnz} entries, its rule has {nnz}; make it again.")
    return stored


def _json(path: Path, what: str) -> Json:
    """A JSON object of zeroskip that says that it is a `what`."""
    try:
        if path.stat().st_size > 2**26:
            raise DamagedFile(f"{path}: it has {path.stat().st_size} bytes, too many for what it should hold.")
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise DamagedFile(f"{path}: it cannot be read ({error.strerror}); check the path.") from None
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{path}: it is no JSON ({error}); make it again.") from None
    if not isinstance(found, dict) or found.get("zeroskip") != what or found.get("version") != VERSION:
        raise DamagedFile(f"{path}: it does not say that it is a {what!r} of version {VERSION}; pass one that is.")
    return found


def _smtx(path: Path) -> CSR:
    found = read_smtx(path)
    index: Any = np.uint16 if found.shape[1] <= 65536 else np.int32
    ones = np.ones(found.indices.size, dtype=np.float32)
    return CSR(found.shape, found.indptr, found.indices.astype(index), ones)


def _npz_bytes(mask: CSR) -> bytes:
    """What `scipy.sparse.load_npz` reads; the same bytes for the same mask."""
    file = io.BytesIO()
    np.savez_compressed(
        file,
        format=np.array(b"csr"),
        shape=np.array(mask.shape, dtype=np.int64),
        indptr=mask.indptr,
        indices=mask.indices.astype(np.int32),
        data=mask.data,
    )
    return file.getvalue()


def _npz(path: Path) -> CSR:
    found = read_arrays(path, ("format", "shape", "indptr", "indices"))
    try:
        if found["format"].item() not in (b"csr", "csr"):
            raise ValueError(f"its format is {found['format'].item()!r}")
        if found["shape"].shape != (2,):
            raise ValueError("its shape is not two sizes")
        rows, columns = (int(size) for size in found["shape"])
    except UNREADABLE as error:
        raise DamagedFile(f"{path}: it is no CSR matrix of SciPy ({error}); save it again.") from None
    pattern = structure_of(path, (rows, columns), found["indptr"], found["indices"])
    return CSR(pattern.shape, pattern.indptr, pattern.indices, np.ones(pattern.indices.size, dtype=np.float32))
