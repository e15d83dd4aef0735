"""An MLP of four square layers with ReLU, pruned at random: zeroskip against DeepSparse, batch by batch.

    python3.11 -m venv deepsparse-venv && deepsparse-venv/bin/pip install deepsparse==1.8.0
    python benchmarks/deepsparse_mlp.py --deepsparse-python deepsparse-venv/bin/python [--json]

DeepSparse 1.8 wants Python 3.11 or older and NumPy 1, so it has an environment of its own, with nothing else in it.
Each engine is a process that lives as long as the run and gets orders over a pipe: each has all threads while it runs
and the other sleeps, and before each turn the other's workers must have gone quiet. Both have the same weights
(DeepSparse in an ONNX file) and the same inputs, (batch, features) in float32, and must agree with float64 before
anything is timed. They take turns; figures are medians over all calls. zeroskip runs a chain of
`zeroskip.plan("linear", ...)`, bias and ReLU in the kernels. Loading includes what each engine does to choose and to
pack; it is shown and counts for nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

LAYERS = 4
# Weights of less than this share of the last cache stay there, as `compile` takes it too. Virtual machines claim the
# cache of a whole socket.
CACHED_SHARE, MOST_CACHE = 0.75, 32 * 2**20
QUIET_MAX_S = 1.0
# A chain of four products of 4096 float32 terms, as share of the largest result.
TOLERANCE = 1e-3


def main() -> None:
    """Print a line a sparsity and batch, and the smallest ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deepsparse-python", help="the python of an environment with deepsparse 1.8")
    parser.add_argument("--features", type=int, default=4096)
    parser.add_argument("--sparsity", default="0.5,0.8,0.9,0.95,0.98")
    parser.add_argument("--batch", default="1,8,16,32,64,128")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each engine")
    parser.add_argument("--slice", type=float, default=0.4, metavar="S", help="seconds of a turn; at least three calls")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", choices=("zeroskip", "deepsparse"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve(options.worker, options.threads)
        return
    if not options.deepsparse_python:
        parser.error("--deepsparse-python is missing; the head of this file has the commands that make one")
    rows = measure(options)
    if options.json:
        print(json.dumps(rows))
    worst = min(rows, key=lambda row: float(row["ratio"]))
    over = sum(row["ratio"] >= 1 for row in rows)
    print(
        f"zeroskip is at least as fast in {over} of {len(rows)} cells; its smallest ratio is {worst['ratio']:.2f}, at "
        f"{worst['sparsity']:.0%} and batch {worst['batch']}",
        file=sys.stderr if options.json else sys.stdout,
    )


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All cells; each is printed when it is done."""
    rows = []
    engines = [
        Engine("zeroskip", sys.executable, options.threads),
        Engine("deepsparse", options.deepsparse_python, options.threads),
    ]
    try:
        for sparsity in map(float, options.sparsity.split(",")):
            with tempfile.TemporaryDirectory() as work:
                weights, biases = network(options.features, sparsity)
                write_onnx(Path(work) / "mlp.onnx", weights, biases)
                for index, weight in enumerate(weights):
                    np.save(Path(work) / f"weight{index}.npy", weight)
                np.save(Path(work) / "biases.npy", np.stack(biases))
                batches = [int(batch) for batch in options.batch.split(",")]
                x = np.random.default_rng(0).standard_normal((max(batches), options.features), dtype=np.float32)
                expected = reference(x, weights, biases)
                for batch in batches:
                    row = {"sparsity": sparsity, "batch": batch, "features": options.features}
                    row |= cell(engines, Path(work), x[:batch], expected[:batch], options)
                    rows.append(row)
                    print(line(row), file=sys.stderr if options.json else sys.stdout, flush=True)
    finally:
        for engine in engines:
            engine.close()
    return rows


def network(features: int, sparsity: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights (out, in) with exactly that share of zeros, of a size that keeps activations near 1; biases."""
    random = np.random.default_rng([features, round(sparsity * 1000)])
    kept = round((1 - sparsity) * features * features)
    weights = []
    for _ in range(LAYERS):
        flat = np.zeros(features * features, dtype=np.float32)
        places = random.choice(flat.size, kept, replace=False, shuffle=False)
        flat[places] = random.standard_normal(kept, dtype=np.float32) * np.sqrt(2 * features / kept)
        weights.append(flat.reshape(features, features))
    return weights, [random.standard_normal(features, dtype=np.float32) * np.float32(0.1) for _ in range(LAYERS)]


def write_onnx(path: Path, weights: list[np.ndarray], biases: list[np.ndarray]) -> None:
    """Gemm and Relu in turn, weights as a torch Linear has them."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, name = [], [], "x"
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        constants += [numpy_helper.from_array(weight, f"w{index}"), numpy_helper.from_array(bias, f"b{index}")]
        nodes.append(helper.make_node("Gemm", [name, f"w{index}", f"b{index}"], [f"z{index}"], transB=1))
        nodes.append(helper.make_node("Relu", [f"z{index}"], [f"y{index}"]))
        name = f"y{index}"
    ends = [
        helper.make_tensor_value_info(end, TensorProto.FLOAT, ("batch", weights[0].shape[1])) for end in ("x", name)
    ]
    graph = helper.make_graph(nodes, "mlp", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))


def reference(x: np.ndarray, weights: list[np.ndarray], biases: list[np.ndarray]) -> np.ndarray:
    """The network in float64."""
    found = x.astype(np.float64)
    for weight, bias in zip(weights, biases, strict=True):
        found = np.maximum(found @ weight.T.astype(np.float64) + bias, 0)
    return found


def cell(
    engines: list[Engine], work: Path, x: np.ndarray, expected: np.ndarray, options: argparse.Namespace
) -> dict[str, Any]:
    """Load, check, then time in turns."""
    np.save(work / "x.npy", x)
    row: dict[str, Any] = {}
    for engine in engines:
        quiet(engines)
        loaded = engine.ask(order="load", folder=str(work), batch=len(x))
        row[engine.name] = {"load_s": loaded["load_s"], "how": loaded["how"], "times_s": []}
        error = np.abs(np.load(work / f"{engine.name}.npy") - expected).max() / np.abs(expected).max()
        row[engine.name]["error"] = float(error)
        if not error <= TOLERANCE:
            raise SystemExit(f"{engine.name} is wrong at batch {len(x)}: off by {error:.2g} of the largest result")
    for turn in range(options.rounds):
        for engine in engines if turn % 2 else reversed(engines):
            quiet(engines)
            row[engine.name]["times_s"] += engine.ask(order="time", seconds=options.slice)["times_s"]
    for engine in engines:
        times = row[engine.name].pop("times_s")
        row[engine.name] |= {"median_s": float(np.median(times)), "calls": len(times)}
        row[engine.name] |= {f"q{share}_s": float(np.percentile(times, share)) for share in (10, 90)}
    row["ratio"] = row["deepsparse"]["median_s"] / row["zeroskip"]["median_s"]
    row["q10_ratio"] = row["deepsparse"]["q10_s"] / row["zeroskip"]["q10_s"]
    return row


def line(row: dict[str, Any]) -> str:
    """A cell for people."""
    ours, theirs = row["zeroskip"], row["deepsparse"]
    return (
        f"{row['sparsity']:4.0%} batch {row['batch']:4d}: zeroskip {ours['median_s'] * 1e3:8.3f} ms, "
        f"deepsparse {theirs['median_s'] * 1e3:8.3f} ms, ratio {row['ratio']:5.2f} (tenth percentiles "
        f"{row['q10_ratio']:.2f}; {ours['how']}; "
        f"loading {ours['load_s']:.1f} and {theirs['load_s']:.1f} s)"
    )


class Engine:
    """A worker process: orders and answers are lines of JSON."""

    def __init__(self, name: str, python: str, threads: int) -> None:
        self.name = name
        command = [python, str(Path(__file__).resolve()), "--worker", name, "--threads", str(threads)]
        environment = {**os.environ, "ZEROSKIP_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, **order: Any) -> dict[str, Any]:
        """Send an order and wait for its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} ended with code {self.process.wait()}; its own words are above")
        found: dict[str, Any] = json.loads(answer)
        return found

    def cpu_s(self) -> float:
        """Processor time that the process has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End it."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def quiet(engines: list[Engine]) -> None:
    """Wait until no engine uses the processor any more; clock ticks are 10 ms, so over five of them."""
    end = time.perf_counter() + QUIET_MAX_S
    while time.perf_counter() < end:
        before = sum(engine.cpu_s() for engine in engines)
        time.sleep(0.05)
        if sum(engine.cpu_s() for engine in engines) - before < 0.015:
            return


def serve(name: str, threads: int) -> None:
    """The worker: what the engine prints goes to standard error, standard output is for answers."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    call: Any = None
    for text in sys.stdin:
        order = json.loads(text)
        if order["order"] == "load":
            call = None  # the old model first
            start = time.perf_counter()
            call, how = LOADERS[name](Path(order["folder"]), order["batch"], threads)
            answer: dict[str, Any] = {"load_s": time.perf_counter() - start, "how": how}
            np.save(Path(order["folder"]) / f"{name}.npy", call())
        else:
            answer = {"times_s": timed(call, order["seconds"])}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def timed(call: Any, seconds: float) -> list[float]:
    """Seconds of single calls after one or a few that wake the threads and fill the caches."""
    start = time.perf_counter()
    warm = 0
    while warm < 1 or (warm < 5 and time.perf_counter() - start < seconds / 10):
        call()
        warm += 1
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return times


def load_zeroskip(folder: Path, batch: int, threads: int) -> tuple[Any, str]:
    """A plan for each layer; weights that do not fit the caches together come from memory, so they are measured so."""
    import zeroskip
    from zeroskip.bench import machine

    biases, layers = np.load(folder / "biases.npy"), sparse_layers(folder)
    cache = machine.last_level_cache_bytes()
    cold = max(2 * cache, machine.claimed_cache_bytes())
    flush = cold if sum(layer.nbytes for layer in layers) > CACHED_SHARE * min(cache, MOST_CACHE) else 0
    plans = [zeroskip.plan("linear", layer, n=batch, budget_s=0.5, flush_bytes=flush) for layer in layers]
    x = np.load(folder / "x.npy")

    def call() -> Any:
        found = x
        for plan, bias in zip(plans, biases, strict=True):
            found = plan(found, bias=bias, activation="relu")
        return found

    return call, ", ".join(sorted({plan.kernel for plan in plans}))


@lru_cache(maxsize=1)
def sparse_layers(folder: Path) -> list[Any]:
    """The weights of one network, the same for all batches."""
    from zeroskip.formats import CSR

    return [CSR.from_dense(np.load(folder / f"weight{index}.npy")) for index in range(LAYERS)]


def load_deepsparse(folder: Path, batch: int, threads: int) -> tuple[Any, str]:
    """An engine for this batch; its inputs are checked once and not in each call."""
    from deepsparse import Engine as DeepSparse

    engine = DeepSparse(str(folder / "mlp.onnx"), batch_size=batch, num_cores=threads)
    inputs = [np.load(folder / "x.npy")]
    engine.run(inputs)
    return lambda: engine.run(inputs, val_inp=False)[
        0
    ], f"{engine.fraction_of_supported_ops:.0%} of operators supported"


LOADERS = {"zeroskip": load_zeroskip, "deepsparse": load_deepsparse}


if __name__ == "__main__":
    main()
