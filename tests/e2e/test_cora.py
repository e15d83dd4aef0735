"""Cora: two-layer GCN and GAT trained in torch, run on the kernels. `pytest -rP` prints their accuracy."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from zeroskip.datasets.planetoid import Planetoid, planetoid  # noqa: E402
from zeroskip.formats import CSR  # noqa: E402
from zeroskip.nn.graph import GATConv, GCNConv  # noqa: E402

HIDDEN = 16


class TwoLayers(torch.nn.Module):
    def __init__(self, kind: str, words: int, topics: int) -> None:
        super().__init__()
        if kind == "gcn":
            self.first, self.second = GCNConv(words, HIDDEN), GCNConv(HIDDEN, topics)
            self.activation, self.drop = torch.nn.functional.relu, 0.5
        else:
            self.first = GATConv(words, 8, heads=8)
            self.second = GATConv(64, topics, heads=1, concat=False)
            self.activation, self.drop = torch.nn.functional.elu, 0.6

    def forward(self, x: torch.Tensor, edges: torch.Tensor | CSR) -> torch.Tensor:
        x = torch.nn.functional.dropout(x, self.drop, self.training)
        x = self.activation(self.first(x, edges))
        return self.second(torch.nn.functional.dropout(x, self.drop, self.training), edges)


@pytest.fixture(scope="module")
def cora(data_dir: Path) -> Planetoid:
    if not (data_dir / "graphs" / "planetoid_cora.npz").is_file():
        pytest.skip("graphs/planetoid_cora.npz is not in ZEROSKIP_DATA_DIR")
    return planetoid("cora", data_dir)


@pytest.mark.parametrize(("kind", "least", "epochs"), [("gcn", 0.78, 100), ("gat", 0.77, 60)])
def test_trained_in_torch_the_kernels_predict_the_same(cora: Planetoid, kind: str, least: float, epochs: int) -> None:
    torch.manual_seed(0)
    x = torch.from_numpy(cora.features.to_dense())
    x = x / x.sum(1, keepdim=True).clamp(min=1)
    rows, cols = cora.graph.places()
    edges = torch.stack([torch.from_numpy(cols), torch.from_numpy(rows)])
    labels, train, test = (torch.from_numpy(part) for part in (cora.labels, cora.train, cora.test))
    model = TwoLayers(kind, x.shape[1], int(labels.max()) + 1)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01 if kind == "gcn" else 0.02, weight_decay=5e-4)
    for _ in range(epochs):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x, edges)[train], labels[train])
        loss.backward()
        optimiser.step()
    model.eval()
    plain = model(x, edges).detach()
    assert model(x, edges).requires_grad, "the torch path"
    with torch.no_grad():
        ours = model(x, edges)
        from_graph = model(x, cora.graph)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
    assert torch.equal(ours.argmax(1), plain.argmax(1))
    assert torch.equal(from_graph.argmax(1), plain.argmax(1))
    accuracy = float((ours.argmax(1)[test] == labels[test]).float().mean())
    print(f"Cora, {kind}: test accuracy {accuracy:.3f}")  # shown by pytest -rP
    assert accuracy >= least, accuracy
