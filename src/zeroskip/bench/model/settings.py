"""What `zeroskip bench model` is asked for, checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..._errors import InvalidArgument
from ...runtime.values import check_values

ENGINES = ("zeroskip", "torch", "onnxruntime", "openvino", "llamacpp")
VALUES = ("float32", "bfloat16", "float16", "int8", "int4")
BASE = "torch:float32"
# A check takes the first so many tokens, and decodes a quarter as many behind them.
CHECK_TOKENS = 64


@dataclass(frozen=True)
class ModelSettings:
    """What to compare, and on what.

    Args:
        model: The dense model, as `models.load` takes it.
        compiled: Folders that `zeroskip compile` wrote from it, to be compared as well.
        sparsity: Levels that it is pruned to here.
        method: Of pruning.
        calibration: Text that pruning looks at: a name or a path.
        values: Value types of our weights, dense and sparse; `int8/32` has a scale for 32 columns, int8 one a row.
        depth: Numbers of layers that a smaller model keeps; None is four fifths.
        engines: Some of `ENGINES`.
        text: What quality is measured on: a name or a path.
        window: Tokens of a window of it.
        windows: How many.
        prompt: Tokens of the prompt whose first answer is timed.
        context: Tokens in front of the ones that are decoded.
        batches: Sequences at a time.
        steps: Tokens decoded of each.
        threads: Of every engine.
        rounds: Turns of each engine.
        budget_s: Begin no turn after this long; None for all.
        limit_s: How long a worker may take for one answer.
    """

    model: str
    compiled: Sequence[Path] = ()
    sparsity: Sequence[float] = (0.5,)
    method: str = "sparsegpt"
    calibration: str = "wikitext2"
    values: Sequence[str] = ("float16", "int8", "int4")
    depth: Sequence[int] | None = None
    engines: Sequence[str] = ENGINES
    text: str = "wikitext2"
    window: int = 512
    windows: int = 8
    prompt: int = 512
    context: int = 128
    batches: Sequence[int] = (1, 4, 16)
    steps: int = 32
    threads: int = 1
    rounds: int = 3
    budget_s: float | None = None
    limit_s: float = 900.0

    def __post_init__(self) -> None:
        _among("engines", self.engines, ENGINES)
        _among("values", [item.partition("/")[0] for item in self.values], VALUES)
        for item in self.values:
            check_values(*values_and_group(item), None)
        for level in self.sparsity:
            if not 0 < level < 1:
                raise InvalidArgument(
                    f"bench model: sparsity has {level:g}; levels lie between 0 and 1, as in 0.5,0.7."
                )
        for name, least in (("window", 2), ("windows", 1), ("prompt", 1), ("context", 1), ("steps", 1), ("rounds", 1)):
            if getattr(self, name) < least:
                raise InvalidArgument(f"bench model: {name} is {getattr(self, name)}; pass at least {least}.")
        if not self.batches or min(self.batches) < 1:
            raise InvalidArgument(f"bench model: batch is {list(self.batches)}; pass sizes such as 1,4,16.")
        labels = [folder.name for folder in self.compiled]
        twice = [name for name in labels if labels.count(name) > 1]
        if twice:
            raise InvalidArgument(f"bench model: two models are called {twice[0]!r}; rows would mix, rename a folder.")

    @property
    def room(self) -> int:
        """Tokens of a sequence that a cache must hold."""
        return max(self.prompt, self.window, self.context + self.steps, CHECK_TOKENS + CHECK_TOKENS // 4) + 8

    def lasting(self) -> dict[str, Any]:
        """What must be the same for a run to go on in a folder: all but how long it may take."""
        found = asdict(self)
        for name in ("rounds", "budget_s", "limit_s"):
            del found[name]
        found["compiled"] = [str(folder.resolve()) for folder in self.compiled]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def values_and_group(item: str) -> tuple[str, int | None]:
    """A value type, and how many columns share a scale: None for the type's own.

    Raises:
        InvalidArgument: If behind the slash is no number.
    """
    name, slash, group = item.partition("/")
    if slash and not group.isdigit():
        raise InvalidArgument(f"bench model: values has {item!r}; write a type, or with a group as in int8/32.")
    return name, int(group) if slash else None


def _among(name: str, given: Sequence[str], known: Sequence[str]) -> None:
    unknown = [item for item in given if item not in known]
    if unknown or not given:
        said = repr(unknown[0]) if unknown else "nothing"
        raise InvalidArgument(f"bench model: {name} has {said}; choose among {', '.join(known)}.")
