"""List what is registered. What cannot be used on this machine is listed too, with the reason."""

from __future__ import annotations

import argparse
from typing import Any

from ._console import Console, UsageError
from ._options import add_plugin

EPILOG = """\
examples:
  zeroskip list kernels                   all kernels, ours and rivals', with what they need
  zeroskip list kernels --rivals          rivals and plug-ins alone
  zeroskip list kernels --plugin libmine.so
  zeroskip list rivals                    each library: runs here, or why not and how to install it
  zeroskip list plugins                   packages and files that bring kernels, and what is wrong with them
  cc -shared -fPIC -I "$(zeroskip list plugins --include)" mine.c -o libmine.so
  zeroskip list formats
  zeroskip list pruners --json

ZEROSKIP_PLUGINS names files as --plugin does, for all commands. docs/rivals.md says how a plug-in is written.
"""

KINDS = ("kernels", "rivals", "plugins", "formats", "pruners")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=KINDS, help="what to list")
    parser.add_argument(
        "--rivals", action="store_true", help="of the kernels, those of other libraries and of plug-ins"
    )
    parser.add_argument("--include", action="store_true", help="with plugins: print the folder of zeroskip_plugin.h")
    add_plugin(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    from ..bench.tables import table
    from ..kernels import _plugins

    if args.include:
        if args.kind != "plugins":
            raise UsageError(f"--include goes with `list plugins`, not with `list {args.kind}`; leave it out.")
        console.show(str(_plugins.INCLUDE))
        console.emit({"include": str(_plugins.INCLUDE)})
        return 0
    if args.rivals and args.kind != "kernels":
        raise UsageError(f"--rivals goes with `list kernels`, not with `list {args.kind}`; leave it out.")
    _plugins.use(args.plugin)
    rows: list[dict[str, Any]] = {
        "kernels": _kernels,
        "rivals": _rivals,
        "plugins": _plugin_rows,
        "formats": _formats,
        "pruners": _pruners,
    }[args.kind]()
    if args.rivals:
        from ..kernels import OURS

        rows = [row for row in rows if row["origin"] not in OURS]
    shown = [{key: _text(value) for key, value in row.items()} for row in rows]
    console.show(table(shown) if shown else f"there are no {args.kind}")
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


def _rivals() -> list[dict[str, Any]]:
    """Each library once, with what it takes to have it."""
    from ..kernels import operations, registry
    from ..kernels.peers._libraries import LIBRARIES, version

    kernels: dict[str, list[Any]] = {}
    for kernel in [*registry, *operations]:
        kernels.setdefault(kernel.origin, []).append(kernel)
    rows = []
    for library in LIBRARIES:
        own = kernels.get(library.origin, [])
        reasons = [kernel.why_not() for kernel in own]
        runs = any(reason is None for reason in reasons)
        rows.append(
            {
                "name": library.origin,
                "library": library.title,
                "kernels": len(own),
                "version": version(library.package),
                "runs here": "yes" if runs else "no",
                "reason": None if runs else next(iter(filter(None, reasons)), registry.unavailable.get(library.origin)),
                "install": library.install,
            }
        )
    return rows


def _plugin_rows() -> list[dict[str, Any]]:
    from ..kernels import registry
    from ..kernels._plugins import plugins

    registry.names()  # finds them
    return [
        {
            "name": plugin.name,
            "source": plugin.source,
            "kernels": list(plugin.kernels),
            "usable": "yes" if plugin.reason is None else "no",
            "reason": plugin.reason,
        }
        for plugin in plugins
    ]


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
