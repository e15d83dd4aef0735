"""The form of a suite, and its reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..._errors import InvalidArgument
from ..._toml import loads

OPS = ("spmm", "sddmm")
DEVICES = ("cpu", "cuda")
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Set:
    """Matrices of one data set, and what they meet.

    Args:
        dataset: As `zeroskip data list` names it.
        op: spmm, or sddmm.
        entries: Globs of names in the data set.
        limit: At most so many of them, spread over models, methods and levels; None for all.
        n: Columns of B; for sddmm the depth.
        kernels: As `--kernels` of `zeroskip bench spmm`.
        peers: As its `--peers`.
        dtype: Value type of the matrices.
        device: Whose kernels `auto` and `all` mean: cpu, or cuda.
        seconds: Of timing for each matrix and n, where no budget says otherwise.
        rounds: Slices a kernel gets of them.
        oracle: Whether our kernels also run on each matrix with its entries moved to the first columns.
    """

    dataset: str
    op: str = "spmm"
    entries: tuple[str, ...] = ("*",)
    limit: int | None = None
    n: tuple[int, ...] = (32, 128, 1024)
    kernels: tuple[str, ...] = ("auto",)
    peers: tuple[str, ...] = ("all",)
    dtype: str = "float32"
    device: str = "cpu"
    seconds: float = 0.3
    rounds: int = 3
    oracle: bool = False


@dataclass(frozen=True)
class Suite:
    """What `zeroskip bench run` measures.

    Args:
        name: Of the file, in every row.
        title: One line.
        description: What it is for.
        sets: In no order: a run takes turns.
    """

    name: str
    title: str
    description: str
    sets: tuple[Set, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values, to compare and to send."""
        return asdict(self)


def built_in() -> list[Suite]:
    """The suites that come with zeroskip."""
    return [_read(path) for path in sorted(_FOLDER.glob("*.toml"))]


def load(name: str) -> Suite:
    """A built-in suite by its name, or that of a TOML file.

    Raises:
        InvalidArgument: If there is none of that name, naming those that there are.
        InvalidArgument: If the file is no suite; naming the set, the key, its value and the rule.
    """
    path = _FOLDER / f"{name}.toml"
    if path.parent == _FOLDER and path.is_file():
        return _read(path)
    path = Path(name)
    if not path.is_file():
        known = ", ".join(suite.name for suite in built_in())
        raise InvalidArgument(f"bench run: suite {name!r} is neither a file nor one of {known}; choose one of them.")
    return _read(path)


def _read(path: Path) -> Suite:
    try:
        found = loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{path}: is no TOML file ({error}).") from None
    unknown = set(found) - {"title", "description", "set"}
    sets = found.get("set")
    if unknown:
        raise InvalidArgument(f"{path}: {sorted(unknown)[0]} is no key of a suite; use title, description and [[set]].")
    if not isinstance(sets, list) or not sets:
        raise InvalidArgument(f"{path}: has no [[set]]; a suite needs at least one, with a dataset.")
    made = tuple(_set(f"{path}: set {number}", item) for number, item in enumerate(sets, 1))
    return Suite(path.stem, str(found.get("title", path.stem)), str(found.get("description", "")), made)


def _set(where: str, item: Any) -> Set:
    if not isinstance(item, Mapping):
        raise InvalidArgument(f"{where}: is {item!r}, it must be a table; write [[set]].")
    known = {field.name: field for field in fields(Set)}
    for name in item:
        if name not in known:
            raise InvalidArgument(f"{where}: {name} is not known; use some of {', '.join(known)}.")
    if "dataset" not in item:
        raise InvalidArgument(f"{where}: dataset is missing; name one of `zeroskip data list`.")
    values = {name: _value(where, name, value, known[name].default) for name, value in item.items()}
    made = Set(**values)
    if made.op not in OPS:
        raise InvalidArgument(f"{where}: op is {made.op!r}, it must be one of {', '.join(OPS)}.")
    if made.device not in DEVICES:
        raise InvalidArgument(f"{where}: device is {made.device!r}, it must be one of {', '.join(DEVICES)}.")
    for name, least in (("limit", 1), ("rounds", 1), ("seconds", 0)):
        value = getattr(made, name)
        if value is not None and value < least:
            raise InvalidArgument(f"{where}: {name} is {value}, it must be at least {least}.")
    if not made.n or min(made.n) < 1:
        raise InvalidArgument(f"{where}: n is {list(made.n)}, it must be a list of positive numbers.")
    return made


def _value(where: str, name: str, value: Any, default: Any) -> Any:
    """A value of the type that the field has; lists become tuples."""
    many = isinstance(default, tuple)
    kind: type = str if default is MISSING else int if default is None else type(default[0] if many else default)
    given = (value if isinstance(value, list) else [value]) if many else [value]
    accepted = (int, float) if kind is float else (kind,)
    for one in given:
        if not isinstance(one, accepted) or (isinstance(one, bool) and kind is not bool):
            raise InvalidArgument(f"{where}: {name} is {value!r}, it must be {'a list of ' * many}{kind.__name__}.")
    return tuple(given) if many else value
