"""Layers of graph networks: against dense formulas, torch against kernels, and against PyTorch Geometric."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from zeroskip import DtypeError, InvalidArgument, ShapeError, ops  # noqa: E402
from zeroskip.nn.graph import GATConv, GCNConv, GINConv, RGCNConv, SAGEConv, swap  # noqa: E402

NODES, WIDTH, OUT = 23, 6, 5


def edges(repeated: bool = False, loops: bool = True) -> torch.Tensor:
    """Random edges, two of the nodes without any; a loop or two."""
    rng = np.random.default_rng(1)
    keys = rng.choice((NODES - 2) ** 2, size=70, replace=False)
    found = np.stack([keys // (NODES - 2), keys % (NODES - 2)])
    found = found[:, found[0] != found[1]]
    if loops:
        found = np.concatenate([found, [[3, 7], [3, 7]]], axis=1)
    if repeated:
        found = np.concatenate([found, found[:, :9]], axis=1)
    return torch.from_numpy(found)


def inputs() -> torch.Tensor:
    return torch.randn(NODES, WIDTH, generator=torch.Generator().manual_seed(2))


def adjacency(index: torch.Tensor) -> torch.Tensor:
    """A[target, source] = how often the edge is there."""
    found = torch.zeros(NODES, NODES)
    found.index_put_((index[1], index[0]), torch.ones(index.shape[1]), accumulate=True)
    return found


def dense_gcn(layer: Any, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    a = adjacency(index)
    a = a + torch.diag((a.diag() == 0).float())
    scale = a.sum(1).rsqrt()
    return scale[:, None] * a * scale @ layer.lin(x) + layer.bias


def dense_gat(layer: Any, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    a = adjacency(index)
    a = a - torch.diag(a.diag()) + torch.eye(NODES)
    features = layer.lin(x).view(NODES, layer.heads, layer.out_channels)
    left, right = (features * layer.att_dst).sum(-1), (features * layer.att_src).sum(-1)
    scores = torch.nn.functional.leaky_relu(left[:, None] + right[None], layer.negative_slope)
    weights = a[:, :, None] * (scores - scores.amax(1, keepdim=True)).exp()
    out = torch.einsum("ijh,jhf->ihf", weights / weights.sum(1, keepdim=True), features)
    return (out.flatten(1) if layer.concat else out.mean(1)) + layer.bias


def dense_sage(layer: Any, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    a = adjacency(index)
    if layer.reduce == "max":
        marked = torch.where(a[:, :, None] > 0, x[None], torch.full((), -torch.inf)).amax(1)
        found = torch.where(a.sum(1, keepdim=True) > 0, marked, torch.zeros(()))
    else:
        found = a @ x / a.sum(1, keepdim=True).clamp(min=1)
    return layer.lin_l(found) + layer.lin_r(x)


def dense_gin(layer: Any, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return layer.nn((1 + layer.eps) * x + adjacency(index) @ x)


LAYERS = {
    "gcn": (lambda: GCNConv(WIDTH, OUT), dense_gcn),
    "gat": (lambda: GATConv(WIDTH, OUT, heads=3), dense_gat),
    "gat mean": (lambda: GATConv(WIDTH, OUT, heads=2, concat=False, negative_slope=0.1), dense_gat),
    "sage": (lambda: SAGEConv(WIDTH, OUT), dense_sage),
    "sage max": (lambda: SAGEConv(WIDTH, OUT, aggr="max"), dense_sage),
    "gin": (lambda: GINConv(torch.nn.Linear(WIDTH, OUT), eps=0.3, train_eps=True), dense_gin),
}


@pytest.mark.parametrize("repeated", [False, True], ids=["simple", "repeated"])
@pytest.mark.parametrize("name", LAYERS)
def test_kernels_and_torch_give_the_dense_formula(name: str, repeated: bool) -> None:
    torch.manual_seed(3)
    make, dense = LAYERS[name]
    layer, x, index = make(), inputs(), edges(repeated)
    expected = dense(layer, x, index)
    trained = layer(x, index)
    assert trained.requires_grad
    with torch.no_grad():
        ours = layer(x, index)
        again = layer(x, index)
        graph = ops.from_edges(index[0], index[1], NODES)
        from_graph = None if repeated else layer(x, graph)
    assert not ours.requires_grad
    torch.testing.assert_close(trained, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again, ours, rtol=0, atol=0)
    if from_graph is not None:
        torch.testing.assert_close(from_graph, expected, rtol=1e-5, atol=1e-5)
    trained.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in layer.parameters())


@pytest.mark.parametrize("bases", [None, 2])
@pytest.mark.parametrize("aggr", ["mean", "add"])
def test_rgcn_gives_the_dense_formula(bases: int | None, aggr: str) -> None:
    torch.manual_seed(4)
    layer, x, index = RGCNConv(WIDTH, OUT, 3, num_bases=bases, aggr=aggr), inputs(), edges()
    kinds = torch.arange(index.shape[1]) % 2  # the third relation has no edges
    weight = layer.weight if bases is None else torch.einsum("rb,bio->rio", layer.comp, layer.weight)
    expected = x @ layer.root + layer.bias
    for r in range(3):
        a = adjacency(index[:, kinds == r])
        if aggr == "mean":
            a = a / a.sum(1, keepdim=True).clamp(min=1)
        expected = expected + a @ x @ weight[r]
    torch.testing.assert_close(layer(x, index, kinds), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, index, kinds), expected, rtol=1e-4, atol=1e-5)
        graphs = [ops.from_edges(*index[:, kinds == r], NODES) for r in range(3)]
        torch.testing.assert_close(layer(x, graphs), expected, rtol=1e-4, atol=1e-5)


def test_edge_weights_of_gcn_take_part_and_have_a_gradient() -> None:
    layer, x, index = GCNConv(WIDTH, OUT), inputs(), edges(loops=False)
    weight = torch.rand(index.shape[1], generator=torch.Generator().manual_seed(5))
    asked = weight.clone().requires_grad_()
    trained = layer(x, index, asked)
    trained.sum().backward()
    assert asked.grad is not None
    with torch.no_grad():
        torch.testing.assert_close(layer(x, index, weight), trained.detach(), rtol=1e-5, atol=1e-5)


def test_edges_that_were_changed_in_place_are_seen() -> None:
    layer, x, index = SAGEConv(WIDTH, OUT), inputs(), edges()
    with torch.no_grad():
        before = layer(x, index)
        index[0, :10] = 1
        assert not torch.equal(layer(x, index), before)
        torch.testing.assert_close(layer(x, index), layer(x, index.clone()), rtol=0, atol=0)
    torch.testing.assert_close(copy.deepcopy(layer)(x, index), layer(x, index))


def test_bad_input_is_one_clear_error() -> None:
    layer, x, index = SAGEConv(WIDTH, OUT), inputs(), edges()
    with pytest.raises(InvalidArgument, match=r"SAGEConv: edge_index reaches from 0 to 23 but x has 23 rows"):
        layer(x, torch.tensor([[0, 1], [23, 2]]))
    with pytest.raises(ShapeError, match=r"edge_index has shape \(3, 2\)"):
        layer(x, torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(DtypeError, match="pass int64"):
        layer(x, index.float())
    with pytest.raises(InvalidArgument, match="two kinds of nodes"):
        layer((x, x), index)
    with pytest.raises(ShapeError, match="nodes, features"):
        layer(x[None], index)
    for make, word in (
        (lambda: GATConv(WIDTH, OUT, edge_dim=3), "edge_dim"),
        (lambda: GCNConv(WIDTH, OUT, flow="target_to_source"), "flow"),
        (lambda: RGCNConv(WIDTH, OUT, 2, num_blocks=2), "num_blocks"),
        (lambda: SAGEConv(WIDTH, OUT, aggr="lstm"), "lstm"),
        (lambda: SAGEConv(-1, OUT), "in_channels"),
    ):
        with pytest.raises(InvalidArgument, match=word):
            make()


def pyg_layers() -> dict[str, Any]:
    nn = pytest.importorskip("torch_geometric.nn")
    return {
        "gcn": nn.GCNConv(WIDTH, OUT),
        "sage": nn.SAGEConv(WIDTH, OUT, project=True),
        "gin": nn.GINConv(torch.nn.Linear(WIDTH, OUT), eps=0.2),
        "rgcn": nn.RGCNConv(WIDTH, OUT, 2, num_bases=2),
        "gat": nn.GATConv(WIDTH, OUT, heads=2),
    }


@pytest.mark.parametrize("name", ["gcn", "sage", "gin", "rgcn", "gat"])
def test_swapped_layers_of_pytorch_geometric_give_the_same(name: str) -> None:
    theirs = pyg_layers()[name]
    x, index = inputs(), edges(loops=name != "gcn")
    rest = (torch.arange(index.shape[1]) % 2,) if name == "rgcn" else ()
    with torch.no_grad():
        expected = theirs(x, index, *rest)
        swapped = swap(theirs)
        assert type(swapped.model).__module__.startswith("zeroskip")
        torch.testing.assert_close(swapped.model(x, index, *rest), expected, rtol=1e-4, atol=1e-5)
    assert {id(p) for p in swapped.model.parameters()} == {id(p) for p in theirs.parameters()}
    swapped.model.load_state_dict(theirs.state_dict())


def test_a_whole_model_is_swapped_in_place_and_what_cannot_be_is_named() -> None:
    nn = pytest.importorskip("torch_geometric.nn")
    model = nn.GAT(WIDTH, 8, num_layers=2, out_channels=OUT, heads=2).eval()
    x, index = inputs(), edges()
    with torch.no_grad():
        expected = model(x, index)
        swapped = swap(model)
        assert swapped.model is model
        assert len(swapped.replaced) == 2
        assert not swapped.kept
        torch.testing.assert_close(model(x, index), expected, rtol=1e-4, atol=1e-5)
    kept = swap(torch.nn.Sequential(nn.GATConv(WIDTH, OUT, edge_dim=3)))
    assert "edge_dim" in kept.kept["0"]
