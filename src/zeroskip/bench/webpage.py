"""What report pages share: their templates, and a file written whole."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._errors import MissingDependency
from .drawing import number
from .tables import megabytes, seconds

TEMPLATES = Path(__file__).resolve().parent / "templates"


def render_template(template: str, **values: Any) -> str:
    """A page from its template.

    Raises:
        MissingDependency: If jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingDependency(f"report: the page needs jinja2 ({error}); pip install 'zeroskip[demo]'.") from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(number=number, megabytes=megabytes, seconds=seconds, percent=percent)
    return environment.get_template(template).render(**values)


def percent(value: float) -> str:
    """A share as whole percents, with a decimal place near the ends."""
    return f"{value:.1%}" if value > 0.99 or value < 0.01 else f"{value:.0%}"


def command_line(words: Sequence[str]) -> str:
    """What was typed, so that it can be pasted."""
    return shlex.join(["zeroskip", *words])


def run_facts(doc: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is needed to reproduce a comparison of engines: where it ran, on what, how often.

    Args:
        doc: `machine`, `versions`, `commit`, `when`, and `rows` with `status` and `rounds`.
    """
    where, versions = doc["machine"], doc["versions"]
    names = ("python", "torch", "onnxruntime", "openvino", "nncf", "transformers", "numpy")
    rounds = [row["rounds"] for row in doc["rows"] if row["status"] == "ok"] or [0]
    return [
        ("Processor", f"{where['cpu']}, {where['cores']} cores, {where['isa']}"),
        ("Memory", f"{where['memory_bytes'] / 2**30:.0f} GiB"),
        ("System", where["system"]),
        ("zeroskip", versions["zeroskip"] + (f", commit {doc['commit']}" if doc["commit"] else "")),
        ("Versions", ", ".join(f"{name} {versions.get(name) or 'not installed'}" for name in names)),
        ("Rounds", f"{min(rounds)} to {max(rounds)}" if min(rounds) != max(rounds) else str(max(rounds))),
        ("When", doc["when"]),
    ]


def write_text(path: Path, text: str) -> None:
    """Write a file whole: to one beside it first, renamed when complete."""
    scratch = path.with_name(f".{path.name}.tmp")
    try:
        scratch.write_text(text, encoding="utf-8")
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
