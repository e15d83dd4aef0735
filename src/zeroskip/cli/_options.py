"""What several commands share: option groups, and types of arguments that refuse a bad value before any work."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._errors import ZeroskipError

DTYPES = ("float32", "bfloat16", "float16")
INTEGERS = ("int8", "int4")
ACTIVATIONS = ("int8", "bfloat16", "int16", "float32")


class Help(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the examples and gives the options a wider column."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=110)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """`--json`, `--quiet`, `--debug`: every command has them."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print the result as one JSON document on standard output")
    group.add_argument("--quiet", "-q", action="store_true", help="print no notes and no progress bars")
    group.add_argument(
        "--debug", action="store_true", help="print the traceback of an error (as does ZEROSKIP_DEBUG=1)"
    )


def add_threads(group: Any) -> None:
    group.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="threads of every engine (default: ZEROSKIP_NUM_THREADS, or all cores)",
    )


def add_plugin(parser: Any) -> None:
    """`--plugin FILE`, once or more often."""
    parser.add_argument(
        "--plugin",
        type=existing_file,
        action="append",
        default=[],
        metavar="FILE",
        help="a shared library with a kernel, as zeroskip_plugin.h describes it; may be repeated",
    )


def add_seed(group: Any) -> None:
    group.add_argument("--seed", type=natural, default=0, metavar="N", help="seed of whatever is random (default: 0)")


def _typed(name: str, convert: Callable[[str], Any]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return convert(text)
        except (ZeroskipError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    parse.__name__ = name
    return parse


def _number_in(low: float, high: float, rule: str) -> Callable[[str], float]:
    def convert(text: str) -> float:
        value = _float(text)
        if not low <= value < high:
            hint = (
                f"; {value:g} % is written {value / 100:g}"
                if rule.startswith("a fraction") and 1 <= value < 100
                else ""
            )
            raise ValueError(f"{text} is not {rule}{hint}")
        return value

    return convert


def _open_fraction(text: str) -> float:
    value = _float(text)
    if not 0 < value < 1:
        raise ValueError(f"{text} is not between 0 and 1")
    return value


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


def _int(low: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a whole number") from None
        if value < low:
            raise ValueError(f"{value} is below {low}")
        return value

    return convert


def _list_of(convert: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def convert_all(text: str) -> list[Any]:
        found = [convert(part.strip()) for part in text.split(",") if part.strip()]
        if not found:
            raise ValueError("the list is empty")
        return list(dict.fromkeys(found))

    return convert_all


def _above_zero(text: str) -> float:
    value = _float(text)
    if not 0 < value < float("inf"):
        raise ValueError(f"{text} is not a number above 0")
    return value


def _duration(text: str) -> float:
    """Seconds of `90`, `90s`, `10m` or `1.5h`."""
    scale = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:], 0.0)
    try:
        value = float(text[:-1]) * scale if scale else float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise ValueError(f"{text!r} is not a duration such as 90s, 10m or 1.5h")
    return value


def _shape(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f"{text!r} is not a shape; write rows x columns, as in 4096x4096")
    return int(parts[0]), int(parts[1])


def _pattern(text: str) -> str:
    from ..sparsify import Pattern

    return str(Pattern.parse(text))


def _method(text: str) -> str:
    from ..sparsify import registry

    registry.get(text)
    return text


def _mask_kind(text: str) -> str:
    from ..sparsify.attention import registry

    registry.get(text)
    return text


def _existing_file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise ValueError(f"{text} is not a file")
    return path


fraction = _typed("fraction", _number_in(0.0, 1.0, "a fraction in [0, 1)"))
open_fraction = _typed("fraction", _open_fraction)
fractions = _typed("fractions", _list_of(_number_in(0.0, 1.0, "a fraction in [0, 1)")))
probability = _typed("probability", _number_in(0.0, 1.0 + 1e-9, "in [0, 1]"))
not_negative = _typed("number", _number_in(0.0, float("inf"), "a number of at least 0"))
above_zero = _typed("number", _above_zero)
positive = _typed("number", _int(1))
natural = _typed("number", _int(0))
positives = _typed("numbers", _list_of(_int(1)))
shapes = _typed("shapes", _list_of(_shape))
names = _typed("names", _list_of(str))
pattern = _typed("pattern", _pattern)
method = _typed("method", _method)
duration = _typed("duration", _duration)
mask_kinds = _typed("kinds", _list_of(_mask_kind))
existing_file = _typed("file", _existing_file)
