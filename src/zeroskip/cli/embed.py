"""Turn lines of text into vectors with a compiled encoder: one row a line, in the order of the file."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ._console import Console, UsageError
from ._options import add_threads, positive

EPILOG = """\
examples:
  zeroskip embed minilm-60-fast sentences.txt -o vectors.npy
  cat sentences.txt | zeroskip embed minilm-60-fast - -o vectors.npy --batch-size 64

The result is a float32 NumPy file (lines, features). An empty line gets a vector too, so that rows and lines agree.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="COMPILED", help="folder that `zeroskip compile` wrote")
    parser.add_argument("text", metavar="FILE", help="UTF-8 text, one item a line; - reads standard input")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="VECTORS", help="file to write, .npy")
    how = parser.add_argument_group("how")
    how.add_argument("--batch-size", type=positive, metavar="N", help="most lines at a time (as fill the threads)")
    how.add_argument(
        "--no-normalize", action="store_true", help="keep the length of the vectors, whatever the model says"
    )
    add_threads(how)


def run(args: argparse.Namespace, console: Console) -> int:
    if args.out.suffix != ".npy":
        raise UsageError(f"-o {args.out} does not end in .npy; name it vectors.npy.")
    lines = read_lines(args.text)
    from ..bench.machine import describe, use_threads
    from ..runtime import load

    console.say(f"zeroskip embed on {describe(use_threads(args.threads))}")
    fast = load(args.model)
    start = time.perf_counter()
    with console.progress() as bars:
        vectors = fast.embed(
            lines, batch_size=args.batch_size, normalize=False if args.no_normalize else None, progress=bars
        )
    spent = time.perf_counter() - start
    write_array(args.out, vectors)
    console.show(
        f"{len(lines)} lines to vectors of {vectors.shape[1]} in {spent:.2f} s ({len(lines) / spent:.0f} a second), "
        f"written to {args.out}"
    )
    console.emit(
        {
            "out": str(args.out),
            "lines": len(lines),
            "features": int(vectors.shape[1]),
            "seconds": spent,
            "model": fast.name,
        }
    )
    return 0


def read_lines(source: str) -> list[str]:
    """The lines of a file, or of standard input for `-`."""
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{source} is no file; pass a text file, or - for standard input.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} is not UTF-8 text ({error.reason} at byte {error.start}); convert it.") from None
    lines = text.splitlines()
    if not lines:
        raise UsageError(f"{source} has no lines; pass some text.")
    return lines


def write_array(path: Path, array: Any) -> None:
    """Write a .npy file whole: to a file beside it first, renamed when complete."""
    import numpy as np

    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, array, allow_pickle=False)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(scratch, 0o666 & ~umask)
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
