"""`zeroskip COMMAND ...`: finds the command, runs it, and turns every error into one line and an exit code.

Only the module of the command that was asked for is imported, and nothing heavy before it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import NoReturn

from .._errors import ZeroskipError
from ._console import Console, UsageError
from ._options import Help, add_output_options

COMMANDS = {
    "demo": "make a real model sparse, run it, and write a report page",
    "analyze": "find the sparsity from which sparse beats dense here, before pruning",
    "prune": "set weights of a model to zero and save it as a Hugging Face folder",
    "compile": "choose formats and kernels for a model on this machine and save it",
    "embed": "turn lines of text into vectors with a compiled encoder",
    "serve": "answer embedding requests over HTTP with a compiled encoder",
    "run": "generate text with a compiled decoder",
    "eval": "measure quality: perplexity, or closeness to the dense model",
    "bench": "time kernels, or sentence encoders, against their rivals",
    "data": "list, look at, download and make matrices, graphs and masks",
    "inspect": "print the plan of a compiled model, or the sparsity of a pruned one",
    "list": "list kernels, formats or pruners, and why some cannot be used here",
    "doctor": "print what was found on this machine and what would slow it down",
}

EPILOG = """\
examples:
  zeroskip demo                                             the whole path on all-MiniLM-L6-v2, ends with a page
  zeroskip analyze MODEL                                    which sparsity pays on this processor
  zeroskip prune MODEL --method sparsegpt --sparsity 0.6 -o OUT
  zeroskip compile OUT -o COMPILED
  zeroskip embed COMPILED sentences.txt -o vectors.npy
  zeroskip serve COMPILED --port 8000
  zeroskip run COMPILED "Once upon a time"
  zeroskip bench spmm --shape 4096x4096 --sparsity 0.5,0.9 --n 1,32,128

`zeroskip COMMAND --help` has the options and more examples of each command.
"""


class _Parser(argparse.ArgumentParser):
    """argparse, with the name of the command in front of what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {message}; `{self.prog} --help` has examples.\n")


class _Version(argparse.Action):
    """`--version` without importing anything for it beforehand."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from .. import __version__

        print(f"zeroskip {__version__}")
        parser.exit(0)


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands, of which only `command` has its options filled in."""
    parser = _Parser(
        prog="zeroskip",
        description="Run sparse neural networks: prune a model, compile it for this processor, run it faster.",
        epilog=EPILOG,
        formatter_class=Help,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and stop")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, summary in COMMANDS.items():
        if name != command:
            commands.add_parser(name, help=summary)
            continue
        module = importlib.import_module(f"{__package__}.{name}")
        child = commands.add_parser(
            name, help=summary, description=module.__doc__, epilog=module.EPILOG, formatter_class=Help
        )
        child.set_defaults(handler=module.run)
        module.add_arguments(child)
        if not getattr(module, "NESTED", False):  # a command with kinds of its own gives each of them these options
            add_output_options(child)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 done, 1 failed, 2 wrong use, 130 interrupted.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    named = next((word for word in given if not word.startswith("-")), None)
    parser = build_parser(named)
    try:
        args = parser.parse_args(given)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    args.typed = given
    return _guarded(args)


def _guarded(args: argparse.Namespace) -> int:
    """Call the command; standard output holds its result only, whatever the libraries below print."""
    debug = bool(args.debug or os.environ.get("ZEROSKIP_DEBUG"))
    name = f"zeroskip {args.command}"
    console = Console(json=args.json, quiet=args.quiet, out=sys.stdout, err=sys.stderr)
    try:
        with contextlib.redirect_stdout(sys.stderr), _no_foreign_bars():
            code = int(args.handler(args, console))
        console.flush()
        return code
    except KeyboardInterrupt:
        return _stop(f"\n{name}: interrupted; what was there before is untouched.", 130, debug)
    except UsageError as error:
        return _stop(f"{name}: {error}", 2, debug)
    except BrokenPipeError:  # `zeroskip list kernels | head`: the reader went away, nothing is wrong here
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the interpreter flushes it at exit
        return 1
    except ZeroskipError as error:
        return _stop(f"{name}: {error}", 1, debug)
    except (OSError, MemoryError) as error:
        return _stop(f"{name}: {str(error) or 'not enough memory'}", 1, debug)
    except Exception as error:
        traceback.print_exc()
        return _stop(
            f"{name}: this is a bug in zeroskip ({type(error).__name__}); please report the lines above.", 1, False
        )


@contextlib.contextmanager
def _no_foreign_bars() -> Iterator[None]:
    """Libraries below draw bars of their own, on terminals and in logs alike; ours say that they are enabled."""
    before = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TQDM_DISABLE"]
        else:
            os.environ["TQDM_DISABLE"] = before


def _stop(line: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(line, file=sys.stderr)
    return code
