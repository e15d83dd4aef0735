"""Several processes or machines: the same app as a Ray Serve deployment.

    serve run zeroskip.serve.ray:application folder=/models/minilm-60-fast name=minilm replicas=2 threads=1

or in Python `ray.serve.run(deployment("/models/minilm-60-fast", replicas=2))`. Each replica loads the folder itself,
which has to be there on its machine, and has a queue of its own. Ray's proxy hands requests out, answers health
checks of its own, and restarts what dies; give each replica as many threads as it has cores to itself.
"""

from __future__ import annotations

import os
from typing import Any

from .._errors import InvalidArgument, MissingDependency
from .settings import Settings


def deployment(
    folder: str | os.PathLike[str], settings: Settings | None = None, *, replicas: int = 1, threads: int = 1
) -> Any:
    """An application for `ray.serve.run`.

    Args:
        folder: A compiled encoder, a path that each machine has.
        settings: Limits, keys, name; None for the defaults.
        replicas: Processes.
        threads: Threads of each, which it asks Ray's scheduler for as its cores.
    Raises:
        MissingDependency: If Ray Serve is not installed.
    """
    if replicas < 1 or threads < 1:
        raise InvalidArgument(f"serve: replicas is {replicas} and threads is {threads}; both must be at least 1.")
    try:
        from ray import serve
    except ImportError as error:
        raise MissingDependency(f"serve: Ray Serve is needed ({error}); pip install 'ray[serve]'.") from None
    given = settings or Settings()

    def build() -> Any:
        """The app, in the replica's process."""
        from ..runtime.load import load
        from .app import create_app

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        return create_app(load(folder, threads=threads, mapped=False), given)

    made = serve.deployment(serve.ingress(build)())
    # What a replica may have in flight: the queue behind it refuses what is too much, and says when to come back.
    options = {"num_replicas": replicas, "max_ongoing_requests": 256, "ray_actor_options": {"num_cpus": threads}}
    return made.options(name="zeroskip", graceful_shutdown_timeout_s=given.grace_s, **options).bind()


def application(args: dict[str, str]) -> Any:
    """What `serve run zeroskip.serve.ray:application folder=... [name=...] [replicas=N] [threads=N]` calls."""
    unknown = sorted(set(args) - {"folder", "name", "replicas", "threads"})
    if unknown or "folder" not in args:
        wrong = f"{unknown[0]!r} is no argument" if unknown else "folder is missing"
        raise InvalidArgument(f"serve: {wrong}; pass folder=..., and name, replicas, threads where wanted.")
    from .keys import read_keys

    counts = {}
    for name in ("replicas", "threads"):
        text = args.get(name, "1")
        if not text.isdigit():
            raise InvalidArgument(f"serve: {name} is {text!r}, it must be a whole number.")
        counts[name] = int(text)
    return deployment(args["folder"], Settings(name=args.get("name"), keys=read_keys(None)), **counts)
