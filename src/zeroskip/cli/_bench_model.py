"""Compare every way to make a language model smaller or faster: sparse, quantised, fewer blocks, here and elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._console import Console
from ._options import Help, add_output_options, duration, fractions, names, positive, positives

if TYPE_CHECKING:
    from ..bench.model.settings import ModelSettings

EPILOG = """\
examples:
  zeroskip bench model smollm2                                     ZEROSKIP_DATA_DIR holds WikiText-2
  zeroskip bench model smollm2 --sparsity 0.5,0.7 --values float16,int8,int4 --depth 24 -o compared
  zeroskip bench model ./my-model --text notes.txt --calibration more.txt --engines zeroskip,torch
  zeroskip bench model smollm2 --compiled my-sparse,my-other --budget 20m

The model is pruned and compiled here at each level and value type; blocks are dropped by their influence; rivals build
the dense model with their own tools (pip install openvino nncf onnxruntime-genai onnx-ir llama-cpp-python; what is
missing is listed). Each engine is checked against torch on the same weights before it is timed; docs/bench-model.md has
the method. The folder gets report.html and rows.jsonl, and a run that was interrupted goes on where it was.
"""


def add_parser(kinds: Any) -> None:
    """`bench model` among the kinds of `bench`."""
    parser = kinds.add_parser(
        "model",
        help="a language model: sparse against quantised, smaller and dense ones, in every engine",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=Help,
    )
    parser.add_argument("model", metavar="MODEL", help="the dense model: folder, GGUF file, hub id or short name")
    what = parser.add_argument_group("what is compared (lists are separated by commas)")
    what.add_argument("--sparsity", type=fractions, metavar="S,...", help="levels that it is pruned to (0.5)")
    what.add_argument("--method", default="sparsegpt", help="of pruning (sparsegpt)")
    what.add_argument(
        "--values", type=names, metavar="TYPE,...", help="of our weights, as int8 or int8/32 (float16,int8,int4)"
    )
    what.add_argument(
        "--depth", type=positives, metavar="N,...", help="blocks that a smaller model keeps (80 %% of them)"
    )
    what.add_argument("--compiled", type=names, metavar="FOLDER,...", help="what `zeroskip compile` made of MODEL")
    engines = "some of zeroskip, torch, onnxruntime, openvino, llamacpp (all)"
    what.add_argument("--engines", type=names, metavar="NAME,...", help=engines)
    text = parser.add_argument_group("on what")
    text.add_argument("--text", default="wikitext2", metavar="FILE|NAME", help="quality is measured on it (wikitext2)")
    text.add_argument("--calibration", default="wikitext2", metavar="FILE|NAME", help="pruning looks at it (wikitext2)")
    text.add_argument("--window", type=positive, metavar="N", help="tokens of a window of it (512)")
    text.add_argument("--windows", type=positive, metavar="N", help="how many (8)")
    text.add_argument("--prompt", type=positive, metavar="N", help="tokens until the first answer (512)")
    text.add_argument("--context", type=positive, metavar="N", help="tokens in front of the decoded ones (128)")
    text.add_argument("--batch", type=positives, metavar="N,...", help="sequences at a time (1,4,16)")
    text.add_argument("--steps", type=positive, metavar="N", help="tokens decoded of each (32)")
    how = parser.add_argument_group("how")
    how.add_argument("--threads", type=positive, metavar="N", help="of every engine (all cores)")
    how.add_argument("--rounds", type=positive, metavar="N", help="turns of each engine (3)")
    how.add_argument("--budget", type=duration, metavar="TIME", help="begin no turn after 90s, 10m, ... (none)")
    how.add_argument("--limit", type=duration, default=900.0, metavar="TIME", help="longest wait for an answer (15m)")
    how.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="where everything goes (zeroskip-bench-MODEL)")
    add_output_options(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Compare, print tables, write the page."""
    settings = _settings(args)
    from ..bench.machine import describe
    from ..bench.model.flow import PAGE, run_model
    from ..bench.model.page import render
    from ..bench.model.tables import terminal
    from ..bench.webpage import command_line, write_text

    out = args.out or Path(f"zeroskip-bench-{Path(args.model).name}")
    console.say(f"zeroskip bench model on {describe(settings.threads)}")
    with console.progress() as bars:
        doc = run_model(settings, out, command=command_line(args.typed), say=console.say, progress=bars)
    console.show(terminal(doc["rows"]))
    write_text(out / PAGE, render(doc))
    console.show(f"\nthe page: {(out / PAGE).resolve()}")
    console.emit(doc)
    return 1 if any(row["status"] == "failed" for row in doc["rows"]) else 0


def _settings(args: argparse.Namespace) -> ModelSettings:
    from ..bench.machine import num_cores
    from ..bench.model.settings import ModelSettings

    lists = {"sparsity": args.sparsity, "values": args.values, "engines": args.engines, "batches": args.batch}
    sizes = {name: getattr(args, name) for name in ("window", "windows", "prompt", "context", "steps", "rounds")}
    given: dict[str, Any] = {name: tuple(value) for name, value in lists.items() if value}
    given.update({name: value for name, value in sizes.items() if value is not None})
    return ModelSettings(
        model=args.model,
        compiled=tuple(map(Path, args.compiled or ())),
        method=args.method,
        calibration=args.calibration,
        depth=None if args.depth is None else tuple(args.depth),
        text=args.text,
        threads=args.threads or num_cores(),
        budget_s=args.budget,
        limit_s=args.limit,
        **given,
    )
