"""A torch model of no known family: its modules stay, linear layers are swapped where a sparse kernel beats torch."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .._errors import InvalidArgument, UnsupportedModel
from ..io import DENSE
from ..kernels import Prepared, registry
from ..ops.clock import quartile
from .choose import choose
from .compile import Settings, read_layers
from .layerplan import Choice, LayerPlan, Memory, lane_limits, report_text
from .machine import fingerprint
from .measure import Group, Layer, Timing, candidates, groups_of, matrix_for
from .packing import pack

if TYPE_CHECKING:
    from ..models import LoadedModel

TORCH_DENSE = "spmm_dense_f32_torch"
_ROUNDS = (3, 15)
_SAMPLE_S = 500e-6


class CompiledModule:
    """A torch module whose sparse linear layers are `nn.SparseLinear`; made by `zeroskip.compile`.

    Attributes:
        module: The module; it shares what was not swapped with the one it came from.
        kind: `torch`.
        plan: One `LayerPlan` a linear layer.
        notes: What a user should know.
        torch_threads: Threads of torch while the module runs; None leaves them as they are. 1 where most of the linear
            layers are sparse and torch's threads would spin: docs/compile.md has the figures.
    """

    kind = "torch"
    family = "unknown"

    def __init__(
        self,
        module: Any,
        name: str,
        values: str,
        plan: Sequence[LayerPlan],
        machine: Mapping[str, Any],
        why: str = "no known family",
    ) -> None:
        self.module = module
        self.name = name
        self.values = values
        self.plan = tuple(plan)
        self.machine = dict(machine)
        swapped = sum(layer.format != DENSE for layer in plan)
        self.torch_threads = _torch_threads(plan)
        note = f"{why.rstrip('.')}: the torch modules stay, {swapped} of {len(plan)} linear layers are sparse; "
        self.notes = (note + "what lies between them runs in torch",)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the module, without gradients."""
        import torch

        before = torch.get_num_threads()
        try:
            if self.torch_threads is not None:
                torch.set_num_threads(self.torch_threads)
            with torch.inference_mode():
                return self.module(*args, **options)
        finally:
            if self.torch_threads is not None:
                torch.set_num_threads(before)

    def report(self, *, json: bool = False) -> Any:
        """The plan, as `CompiledModel.report`."""
        if json:
            return [layer.as_json() for layer in self.plan]
        title = f"{self.name} (torch modules), {self.values} values"
        return report_text(title, self.plan, self.memory, self.machine, self.notes)

    @property
    def memory(self) -> Memory:
        """Bytes of the weights: sparse layers, linear layers left dense, everything else."""
        sparse = sum(layer.nbytes for layer in self.plan if layer.format != DENSE)
        dense = sum(layer.nbytes for layer in self.plan if layer.format == DENSE)
        parameters = sum(item.nbytes for item in [*self.module.parameters(), *self.module.buffers()])
        return Memory(sparse, dense, max(0, int(parameters) - dense))

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return self.memory.total

    def save(self, folder: Any, *, overwrite: bool = False) -> NoReturn:
        """Refused: only a graph can be saved without saving code."""
        raise UnsupportedModel(
            f"save: {self.name} keeps its torch modules, and only a graph can be saved ({self.notes[0]}); "
            "save the pruned torch model and compile it again after loading."
        )

    def __getattr__(self, name: str) -> Any:
        if name in ("embed", "generate"):
            raise InvalidArgument(
                f"{name}: {self.name} keeps its torch modules ({self.notes[0]}); call the compiled module itself."
            )
        raise AttributeError(f"CompiledModule has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"CompiledModule({self.name}, {len(self.plan)} linear layers, {self.nbytes / 1e6:.1f} MB)"


def compile_modules(loaded: LoadedModel, settings: Settings, *, why: str = "no known family") -> CompiledModule:
    """Swap the linear layers of a module where that pays; the module passed in is not changed.

    Args:
        loaded: The model.
        settings: How to compile.
        why: Why it is not lowered to a graph, for the notes.
    Raises:
        UnsupportedModel: If there are no linear layers.
    """
    import torch

    started = time.perf_counter()
    shared = {id(item): item for item in [*loaded.model.parameters(), *loaded.model.buffers()]}
    module = copy.deepcopy(loaded.model, shared).eval()
    linears = {name: item for name, item in module.named_modules() if type(item) is torch.nn.Linear}
    if not linears:
        raise UnsupportedModel(f"compile: {loaded.name} has no nn.Linear layers ({why}); there is nothing to compile.")
    values = settings.values_of("encoder")
    weights = {name: item.weight.detach().float().numpy() for name, item in linears.items()}
    layers = read_layers(weights, values, settings.progress)
    fixed = _read_by_parents(module)
    plan: list[LayerPlan] = []
    groups = groups_of([layer for layer in layers if layer.name not in fixed])
    share_s = settings.budget_s / max(1, len(groups) * len(settings.sizes))
    for done, group in enumerate(groups):
        settings.progress("measure", done, len(groups))
        choices = _measured(group, weights[group.layers[0].name], settings, min(share_s, 0.4))
        for layer in group.layers:
            plan.append(_swap(module, layer, linears[layer.name], choices, settings.sizes))
    settings.progress("measure", len(groups), len(groups))
    plan += [_left(layer, fixed[layer.name], settings.sizes) for layer in layers if layer.name in fixed]
    order = {name: index for index, name in enumerate(linears)}
    plan.sort(key=lambda item: order[item.name])
    machine = {**fingerprint(), "compile_s": round(time.perf_counter() - started, 3)}
    return CompiledModule(module, loaded.name, values.dtype, plan, machine, why)


def _torch_threads(plan: Sequence[LayerPlan]) -> int | None:
    """1 where most linear weights are in sparse layers and OpenMP's idle threads spin, else None."""
    total = sum(layer.shape[0] * layer.shape[1] for layer in plan)
    sparse = sum(layer.shape[0] * layer.shape[1] for layer in plan if layer.format != DENSE)
    passive = os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive"
    return 1 if not passive and 2 * sparse > total else None


def _read_by_parents(module: Any) -> dict[str, str]:
    """Linear layers whose weights another module reads by itself, so that they cannot be swapped."""
    import torch

    owners = (torch.nn.TransformerEncoderLayer, torch.nn.TransformerDecoderLayer, torch.nn.MultiheadAttention)
    found: dict[str, str] = {}
    for name, owner in module.named_modules():
        if isinstance(owner, owners):
            for inner, item in owner.named_modules():
                if type(item) is torch.nn.Linear:
                    found[f"{name}.{inner}" if name else inner] = type(owner).__name__
    return found


def _measured(group: Group, weight: Any, settings: Settings, share_s: float) -> tuple[Choice, ...]:
    """Sparse kernels against torch's own product, on rows as a Linear gets them."""
    layer = group.layers[0]
    float32_too = settings.optimize == "speed"
    kernels = candidates(group, float32_too=float32_too, only=settings.kernels, sizes=settings.sizes)
    prepared: dict[str, Prepared] = {TORCH_DENSE: torch_dense(weight)}
    for kernel in kernels:
        if kernel.format != DENSE:
            prepared[kernel.name] = pack(kernel.name, matrix_for(kernel, layer))
    times: dict[str, dict[int, float]] = {name: {} for name in prepared}
    if len(prepared) > 1:
        for n in settings.sizes:
            for name, span in _interleaved(prepared, n, share_s).items():
                times[name][n] = span
        group.timings = [
            Timing(name, registry.get(name).format, registry.get(name).dtype, item.nbytes, times[name])
            for name, item in prepared.items()
        ]
        return choose(group, settings.sizes, settings.optimize)
    reason = f"dense: {layer.sparsity:.0%} of the weights are zero, too few for a sparse kernel"
    return tuple(Choice(n, TORCH_DENSE, None, TORCH_DENSE, None, reason) for n in settings.sizes)


def torch_dense(weight: Any) -> Prepared:
    """torch's dense product over a weight, without a copy of it."""
    import torch

    from ..kernels.peers.torch_dense import TorchDense

    dense: Prepared = TorchDense(TORCH_DENSE, torch.from_numpy(weight))
    return dense


def _interleaved(prepared: Mapping[str, Prepared], n: int, share_s: float) -> dict[str, float]:
    """Seconds of a run of each, lower quartiles: what disturbs a run makes it longer.

    Each sample has a warm-up run and is long: torch's threads keep spinning for a while after its own product, and
    would be counted against whoever runs next (docs/compile.md has the figures).
    """
    rows, columns = next(iter(prepared.values())).shape
    x = np.random.default_rng(0).standard_normal((n, columns), dtype=np.float32)
    out = np.empty((n, rows), dtype=np.float32)

    def sample(item: Prepared, inner: int) -> float:
        item.run(x, out, transposed=True)
        start = time.perf_counter()
        for _ in range(inner):
            item.run(x, out, transposed=True)
        return (time.perf_counter() - start) / inner

    once = {name: sample(item, 1) for name, item in prepared.items()}
    inner = {name: max(1, round(_SAMPLE_S / max(span, 1e-7))) for name, span in once.items()}
    spans: dict[str, list[float]] = {name: [] for name in prepared}
    end = time.perf_counter() + share_s
    for done in range(_ROUNDS[1]):
        if done >= _ROUNDS[0] and time.perf_counter() > end:
            break
        for name, item in prepared.items():
            spans[name].append(sample(item, inner[name]))
    return {name: quartile(found)[0] for name, found in spans.items()}


def _swap(module: Any, layer: Layer, linear: Any, choices: tuple[Choice, ...], sizes: Sequence[int]) -> LayerPlan:
    """Put a SparseLinear in a layer's place where its plan has a sparse kernel."""
    from ..nn import SparseLinear

    names = [choice.kernel for choice in choices]
    if set(names) == {TORCH_DENSE}:
        nbytes = int(linear.weight.nbytes)
        return LayerPlan(layer.name, layer.matrix.shape, layer.sparsity, DENSE, "float32", nbytes, choices)
    made: dict[str, Prepared] = {}
    for name in dict.fromkeys(names):
        weight = linear.weight.detach().float().numpy()
        made[name] = torch_dense(weight) if name == TORCH_DENSE else pack(name, matrix_for(registry.get(name), layer))
    ranges = [(limit, made[name]) for limit, name in zip(lane_limits(sizes), names, strict=True)]
    sparse = SparseLinear(ranges, linear.bias)
    parent, _, last = layer.name.rpartition(".")
    setattr(module.get_submodule(parent), last, sparse)
    stored = next(registry.get(name).format for name in names if name != TORCH_DENSE)
    shape, nbytes, values = layer.matrix.shape, sparse.weight_nbytes, layer.values
    return LayerPlan(layer.name, shape, layer.sparsity, stored, values.dtype, nbytes, choices, values.group)


def _left(layer: Layer, owner: str, sizes: Sequence[int]) -> LayerPlan:
    """The plan of a layer that cannot be swapped."""
    reason = f"dense: {owner} reads this weight by itself, past the layer"
    choices = tuple(Choice(n, TORCH_DENSE, None, TORCH_DENSE, None, reason) for n in sizes)
    nbytes = 4 * layer.matrix.shape[0] * layer.matrix.shape[1]
    return LayerPlan(layer.name, layer.matrix.shape, layer.sparsity, DENSE, "float32", nbytes, choices)
