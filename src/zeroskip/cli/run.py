"""Generate text with a compiled decoder, printed as it comes."""

from __future__ import annotations

import argparse
import sys

from ._console import Console, UsageError
from ._options import add_seed, add_threads, not_negative, positive, probability

EPILOG = """\
examples:
  zeroskip run smollm2-50-fast "Once upon a time"
  zeroskip run smollm2-50-fast "Write a haiku about zeros." --chat --max-tokens 60 --temperature 0.7 --seed 1
  echo "The capital of France is" | zeroskip run smollm2-50-fast - --json

Temperature 0 (the default) takes the likeliest token each time, so that the same prompt gives the same text.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="COMPILED", help="folder that `zeroskip compile` wrote")
    parser.add_argument("prompt", metavar="PROMPT", help="text to continue; - reads standard input")
    draw = parser.add_argument_group("generation")
    draw.add_argument("--max-tokens", type=positive, default=128, metavar="N", help="most tokens to generate (128)")
    draw.add_argument("--temperature", type=not_negative, default=0.0, metavar="T", help="0: the likeliest token (0)")
    draw.add_argument("--top-k", type=positive, metavar="K", help="draw among the K likeliest tokens only")
    draw.add_argument("--top-p", type=probability, metavar="P", help="draw among the likeliest tokens of probability P")
    draw.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end where this text comes (repeatable)"
    )
    draw.add_argument("--chat", action="store_true", help="put the prompt into the model's chat template")
    add_seed(draw)
    add_threads(parser.add_argument_group("running"))


def run(args: argparse.Namespace, console: Console) -> int:
    prompt = sys.stdin.read().rstrip("\n") if args.prompt == "-" else args.prompt
    if not prompt:
        raise UsageError("the prompt is empty; pass some text.")
    from ..bench.machine import describe, use_threads
    from ..runtime import load

    where = describe(use_threads(args.threads))
    console.say(f"zeroskip run on {where}, temperature {args.temperature:g}, seed {args.seed}")
    fast = load(args.model)
    if not args.chat:
        console.stream(prompt)
    made = fast.generate(
        prompt,
        max_tokens=args.max_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        seed=args.seed,
        stop=args.stop,
        chat=args.chat,
        stream=console.stream,
    )
    console.stream("\n")
    console.say(
        f"{made.prompt_tokens} prompt tokens in {made.prefill_s * 1e3:.0f} ms ({made.prefill_tokens_per_s:.0f}/s), "
        f"{len(made.ids)} generated at {made.decode_tokens_per_s:.1f}/s; ended by {made.stopped}"
    )
    console.emit(
        {
            "prompt": prompt,
            "text": made.text,
            "ids": made.ids,
            "prompt_tokens": made.prompt_tokens,
            "prefill_s": made.prefill_s,
            "decode_s": made.decode_s,
            "decode_tokens": made.decode_tokens,
            "stopped": made.stopped,
            "seed": args.seed,
            "model": fast.name,
        }
    )
    return 0
