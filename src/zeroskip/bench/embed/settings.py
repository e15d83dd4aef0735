"""What `zeroskip bench embed` is asked for, checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..._errors import InvalidArgument

ENGINES = ("zeroskip", "torch", "onnxruntime", "onnxruntime-int8", "openvino", "openvino-int8", "deepsparse")
BASE = "onnxruntime"
MIXED, SINGLE, START = "mixed", "single", "start"
QUICK_LINES, QUICK_ROUNDS, QUICK_BATCHES = 64, 2, (1, 32)


@dataclass(frozen=True)
class EmbedSettings:
    """What to compare, and on what.

    Args:
        models: Folders that `zeroskip compile` wrote.
        dense: The model they came from, as `models.load` takes it; None for the name that the folders give.
        engines: Some of `ENGINES`.
        text: A file with one text a line, or a known name.
        lines: How many of its lines.
        batches: Batch sizes.
        mixed: Whether all lines are also run at once, sorted by length.
        tokens: Length of the single sentence.
        threads: Numbers of threads; each gets processes of its own.
        rounds: Turns of each engine.
        budget_s: Begin no other round after this long; None for all rounds.
        limit_s: How long a worker may take for one answer.
        deepsparse_python: The interpreter of an environment with DeepSparse.
        quick: Take the first way to run each engine, without trying the others.
    """

    models: Sequence[Path]
    dense: str | None = None
    engines: Sequence[str] = ENGINES
    text: str = "wikitext2"
    lines: int = 1000
    batches: Sequence[int] = (1, 8, 32, 128)
    mixed: bool = True
    tokens: int = 20
    threads: Sequence[int] = (1,)
    rounds: int = 5
    budget_s: float | None = None
    limit_s: float = 900.0
    deepsparse_python: str | None = None
    quick: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.engines if name not in ENGINES]
        if unknown:
            raise InvalidArgument(f"bench embed: engines has {unknown[0]!r}; choose among {', '.join(ENGINES)}.")
        if "zeroskip" in self.engines and not self.models:
            raise InvalidArgument("bench embed: models is empty; pass a folder that `zeroskip compile` wrote.")
        labels = [folder.name for folder in self.models]
        twice = [name for name in labels if labels.count(name) > 1]
        if twice:
            raise InvalidArgument(f"bench embed: two models are called {twice[0]!r}; rows would mix, rename a folder.")
        if self.lines < 3:
            raise InvalidArgument(f"bench embed: lines is {self.lines}, neighbours need at least 3; pass more.")
        if self.tokens < 3:
            raise InvalidArgument(f"bench embed: tokens is {self.tokens}; two are the special ones, pass at least 3.")
        if not self.batches and not self.mixed:
            raise InvalidArgument("bench embed: batch is empty; pass sizes such as 1,32 or mixed.")

    @property
    def cases(self) -> tuple[str, ...]:
        """What is timed, in order: the start, the single sentence, batches, all lines at once."""
        return (START, SINGLE, *(f"batch{size}" for size in self.batches), *((MIXED,) if self.mixed else ()))

    def lasting(self) -> dict[str, Any]:
        """What must be the same for a run to go on in a folder: all but how long it may take."""
        found = asdict(self)
        for name in ("rounds", "budget_s", "limit_s"):
            del found[name]
        found["models"] = [str(Path(folder).resolve()) for folder in self.models]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def batch_of(case: str) -> int:
    """The batch size of a case such as `batch32`; 1 for the single sentence."""
    return int(case[5:]) if case.startswith("batch") else 1
