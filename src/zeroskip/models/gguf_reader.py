"""Read a GGUF file once, not four times."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any


@contextmanager
def read_once(gguf_file: str | None) -> Iterator[None]:
    """While the body runs, a GGUF file is parsed once, however often transformers asks for it.

    Configuration, weights and tokenizer each parse the whole file again (its vocabulary alone is 100,000 strings, read
    in Python), and the table of tensor names is made anew for each part of the model: together most of the time to load
    a small model. Both are pure functions of their arguments, so their results are kept for as long as one load takes.
    """
    if gguf_file is None:
        yield
        return
    import gguf

    originals: dict[str, Any] = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, original in originals.items():
            setattr(gguf, name, functools.lru_cache(maxsize=4)(original))
        with redirect_stderr(io.StringIO()):  # the conversion draws a bar that no setting of transformers switches off
            yield
    finally:
        for name, original in originals.items():
            setattr(gguf, name, original)
