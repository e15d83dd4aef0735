"""Orders in, answers out, both as lines of JSON. An order that fails is answered with `error`; the process lives on."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

Order = Mapping[str, Any]
Answer = dict[str, Any]


def serve(handlers: Mapping[str, Callable[[Order], Answer]]) -> None:
    """Answer until standard input ends. What an engine prints goes to standard error; standard output holds answers.

    Args:
        handlers: What does an order, by its name; `quit` and `memory` are known.
    """
    known = {**handlers, "memory": memory}
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        order = json.loads(line)
        if order["order"] == "quit":
            return
        try:
            answer = known[order["order"]](order)
        except Exception as error:  # an engine raises anything; who asked makes a row of it
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def version(package: str) -> str | None:
    """Of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def memory(order: Order) -> Answer:
    """What the process holds, and the most it held."""
    found: Answer = {"resident_bytes": None, "peak_bytes": None}
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return found
    for name, key in (("VmRSS:", "resident_bytes"), ("VmHWM:", "peak_bytes")):
        found[key] = next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)
    return found
