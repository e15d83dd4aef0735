"""Serve a compiled encoder over HTTP: OpenAI's /v1/embeddings, /v1/models, /health and /metrics."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import InvalidArgument, MissingDependency
from ._console import Console, UsageError
from ._options import add_threads, existing_file, not_negative, positive

if TYPE_CHECKING:
    import socket

    from ..runtime import CompiledModel

EPILOG = """\
examples:
  zeroskip serve minilm-60-fast
  zeroskip serve minilm-60-fast --host 0.0.0.0 --port 8080 --api-key-file keys.txt
  ZEROSKIP_API_KEY=$(openssl rand -hex 24) zeroskip serve minilm-60-fast --log-format text

  curl localhost:8000/v1/embeddings -H 'Content-Type: application/json' \\
       -d '{"model": "minilm-60-fast", "input": ["a sentence", "another one"]}'

MODEL is what `zeroskip compile` wrote; anything else that compile takes is compiled first, into a folder that is
deleted in the end. SIGTERM and Ctrl-C finish what was accepted and exit with 0; SIGHUP loads the folder again. One
JSON line a request goes to standard error, without texts. Keys come from the environment or a file, never from the
command line. docs/serve.md has the fields, limits, metrics, and how to run several processes.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="folder that `zeroskip compile` wrote")
    where = parser.add_argument_group("where")
    where.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on (127.0.0.1)")
    where.add_argument("--port", type=_port, default=8000, metavar="N", help="port; 0 takes a free one (8000)")
    where.add_argument("--name", metavar="NAME", help="how clients call the model (the name of the folder)")
    where.add_argument(
        "--api-key-file",
        type=existing_file,
        metavar="FILE",
        help="keys that are let in, one a line; also ZEROSKIP_API_KEY",
    )
    where.add_argument("--log-format", choices=("json", "text", "off"), default="json", help="lines of the log (json)")
    batch = parser.add_argument_group("batches")
    add_threads(batch)
    batch.add_argument("--batch-tokens", type=positive, metavar="N", help="most tokens a run (1024, or 256 a thread)")
    batch.add_argument(
        "--max-wait-ms", type=not_negative, default=2.0, metavar="MS", help="idle wait for texts on their way (2)"
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--queue", type=positive, metavar="N", help="most texts that wait; beyond it 429 (8192, or --max-texts)"
    )
    limits.add_argument("--max-texts", type=positive, default=2048, metavar="N", help="most texts of a request (2048)")
    limits.add_argument(
        "--max-body-mb", type=positive, default=8, metavar="MB", help="most of a body; beyond it 413 (8)"
    )
    limits.add_argument("--body-timeout", type=not_negative, default=10.0, metavar="S", help="time to send a body (10)")
    limits.add_argument(
        "--refuse-long", action="store_true", help="400 for texts longer than the model takes, no cutting"
    )
    limits.add_argument(
        "--grace-s", type=not_negative, default=30.0, metavar="S", help="time to finish when stopped (30)"
    )


def run(args: argparse.Namespace, console: Console) -> int:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the worker uses the cores
    try:
        from ..serve import Settings
        from ..serve.keys import read_keys

        settings = Settings(
            name=args.name or _folder_name(args.model),
            batch_tokens=args.batch_tokens,
            max_wait_ms=args.max_wait_ms,
            queue_texts=args.queue or max(8192, args.max_texts),
            max_texts=args.max_texts,
            max_body_bytes=args.max_body_mb * 2**20,
            body_timeout_s=args.body_timeout,
            grace_s=args.grace_s,
            refuse_long=args.refuse_long,
            keys=read_keys(args.api_key_file),
            log_format="off" if args.quiet and args.log_format == "text" else args.log_format,
        )
    except InvalidArgument as error:
        raise UsageError(str(error)) from None
    listener = _bind(args.host, args.port)
    try:
        return _serve(args, console, settings, listener)
    finally:
        listener.close()


def _serve(args: argparse.Namespace, console: Console, settings: Any, listener: socket.socket) -> int:
    with tempfile.TemporaryDirectory(prefix="zeroskip-serve-") as scratch:
        load = _loader(args, console, Path(scratch))
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(load)
            serve = _framework()  # meanwhile: a tenth of a second of the start
            model = loading.result()
        for note in model.notes:
            console.say(f"note: {note}")
        host, port = listener.getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

        def started() -> None:
            console.say(
                f"zeroskip serve: {settings.name}, {model.features} numbers a vector, {model.nbytes / 1e6:.1f} MB, "
                f"{'keys wanted' if settings.keys else 'no key wanted'}, at {address}/v1"
            )
            console.emit(
                {"url": f"{address}/v1", "model": settings.name, "features": model.features, "pid": os.getpid()}
            )

        serve(model, settings, listener, reload=load, started=started)
    return 0


def _framework() -> Any:
    """What serves, imported."""
    try:
        from ..serve import run
    except ImportError as error:
        raise MissingDependency(f"serve: {error.name} is not installed; pip install 'zeroskip[serve]'.") from None
    return run


def _loader(args: argparse.Namespace, console: Console, scratch: Path) -> Callable[[], CompiledModel]:
    """What loads the model, now and on SIGHUP; a model that is not compiled is compiled first."""
    folder = Path(args.model).expanduser()
    if not (folder / "zeroskip.json").is_file():
        folder = _compiled(args, console, scratch)
    from ..runtime.load import load

    return lambda: load(folder, threads=args.threads, mapped=False)


def _compiled(args: argparse.Namespace, console: Console, scratch: Path) -> Path:
    import importlib.util

    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        raise MissingDependency(
            f"{args.model} is no compiled model, and compiling it needs torch and transformers: run "
            f"`zeroskip compile {args.model} -o COMPILED` where they are, or pip install 'zeroskip[models]'."
        )
    from ..runtime import compile

    console.say(f"zeroskip serve: {args.model} is not compiled; compiling it (`zeroskip compile` once saves the time)")
    with console.progress("compile") as bars:
        compiled = compile(args.model, threads=args.threads, progress=bars)
    if getattr(compiled, "kind", None) != "encoder":
        raise InvalidArgument(f"serve: {args.model} is no encoder, so it makes no embeddings; pass an encoder.")
    return compiled.save(scratch / "model")


def _bind(host: str, port: int) -> socket.socket:
    import errno

    from ..serve.sockets import bind

    try:
        return bind(host, port)
    except OSError as error:
        mend = {
            errno.EADDRINUSE: "the port is in use; choose another one by --port, or stop what has it",
            errno.EACCES: "no permission; choose a --port of 1024 or more",
            errno.EADDRNOTAVAIL: "this machine has no such address; choose another --host",
        }.get(error.errno or 0, f"{error.strerror or error}; choose another --host or --port")
        raise UsageError(f"cannot listen on {host}:{port}: {mend}.") from None


def _folder_name(model: str) -> str:
    return Path(model).expanduser().resolve().name if Path(model).expanduser().exists() else model


def _port(text: str) -> int:
    value = int(text) if text.isdigit() else -1
    if not 0 <= value < 65536:
        raise argparse.ArgumentTypeError(f"{text} is no port; choose 0 to 65535")
    return value
