"""List what is registered. What cannot be used on this machine is listed too, with the reason."""

from __future__ import annotations

import argparse
from typing import Any

from ._console import Console

EPILOG = """\
examples:
  zeroskip list kernels                   all kernels, ours and rivals', with what they need
  zeroskip list formats
  zeroskip list pruners --json
"""

KINDS = ("kernels", "formats", "pruners")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=KINDS, help="what to list")


def run(args: argparse.Namespace, console: Console) -> int:
    from ..bench.tables import table

    rows: list[dict[str, Any]] = {"kernels": _kernels, "formats": _formats, "pruners": _pruners}[args.kind]()
    shown = [{key: _text(value) for key, value in row.items()} for row in rows]
    console.show(table(shown))
    console.emit(rows)
    return 0


def _text(value: Any) -> str:
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _kernels() -> list[dict[str, Any]]:
    from ..kernels import operations, registry

    rows: list[dict[str, Any]] = []
    for kernel in [*registry, *operations]:
        reason = kernel.why_not()
        rows.append(
            {
                "name": kernel.name,
                "op": kernel.op,
                "format": kernel.format,
                "dtype": kernel.dtype,
                "isa": kernel.isa,
                "origin": kernel.origin,
                "usable": "yes" if reason is None else "no",
                "reason": reason,
            }
        )
    for name, reason in registry.unavailable.items():
        empty = dict.fromkeys(("op", "format", "dtype", "isa"))
        rows.append({"name": f"({name})", **empty, "origin": name, "usable": "no", "reason": reason})
    return rows


def _formats() -> list[dict[str, Any]]:
    from ..formats import registry

    return [
        {
            "name": cls.name,
            "arrays": list(cls.array_names),
            "parameters": list(cls.param_names),
            "what": _first_line(cls.__doc__),
        }
        for cls in registry
    ] + _missing(registry.unavailable, ("arrays", "parameters"))


def _pruners() -> list[dict[str, Any]]:
    from ..sparsify import registry

    return [
        {"name": pruner.name, "needs": pruner.needs, "scopes": list(pruner.scopes), "what": pruner.summary}
        for pruner in registry
    ] + _missing(registry.unavailable, ("needs", "scopes"))


def _missing(unavailable: dict[str, str], empty: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {"name": f"({name})", **dict.fromkeys(empty), "what": f"cannot be used: {reason}"}
        for name, reason in unavailable.items()
    ]


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0] if text else ""
