"""Print what a saved model says of itself: the plan of a compiled one, what was removed from a pruned one."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ._console import Console, UsageError

EPILOG = """\
examples:
  zeroskip inspect minilm-60-fast                            the plan: kernel, time and reason of each layer
  zeroskip inspect minilm-60 --json                          the layers that were pruned

Nothing is loaded or run: this reads the description in the folder.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="what `zeroskip compile` or `zeroskip prune` wrote")


def run(args: argparse.Namespace, console: Console) -> int:
    from ..io import is_saved_model
    from ..models.saving import REPORT_FILE

    if is_saved_model(args.folder):
        return _compiled(args.folder, console)
    if (args.folder / REPORT_FILE).is_file():
        return _pruned(args.folder / REPORT_FILE, console)
    raise UsageError(f"{args.folder} holds neither a compiled nor a pruned model; pass what prune or compile wrote.")


def _compiled(folder: Path, console: Console) -> int:
    from ..io import open_saved
    from ..runtime import layerplan
    from ..runtime.floor.report import FloorReport

    manifest = open_saved(folder).manifest
    plan = layerplan.plan_from_json(str(folder), manifest.plan)
    where = manifest.machine
    console.show(f"{manifest.name}: {manifest.kind} of family {manifest.family}, {manifest.values} values")
    console.show(
        f"measured on {where.get('model_name', 'an unknown processor')}, {where.get('threads', '?')} threads\n"
    )
    console.show(layerplan.table(plan))
    for note in layerplan.precision(plan):
        console.show(f"note: {note}")
    floor = None if manifest.floor is None else FloorReport.from_json(f"{folder}: floor", manifest.floor)
    if floor is not None:
        console.show(f"\n{floor}")
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    console.show("\n" + ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in files.items() if size > 1e5))
    console.emit(
        {
            "kind": manifest.kind,
            "family": manifest.family,
            "name": manifest.name,
            "values": manifest.values,
            "machine": dict(where),
            "files": files,
            "floor": None if floor is None else floor.as_json(),
            "plan": [layer.as_json() for layer in plan],
        }
    )
    return 0


def _pruned(path: Path, console: Console) -> int:
    from .._errors import DamagedFile
    from ..bench.tables import table

    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        head = (
            f"{report['method']} to {report['achieved']:.4f} ({report['pattern']}), seed {report['seed']}, "
            f"calibration: {report['calibration']}"
        )
        rows = [
            {
                "layer": str(layer["name"]),
                "shape": "x".join(map(str, layer["shape"])),
                "sparsity": f"{layer['sparsity']:.4f}",
                "output error": "" if layer["error"] is None else f"{layer['error']:.4f}",
            }
            for layer in report["layers"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFile(f"inspect: {path} cannot be read ({error!r}); prune the model again.") from error
    console.show(head + "\n")
    console.show(table(rows))
    console.emit(report)
    return 0
