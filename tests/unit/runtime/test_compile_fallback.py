"""A torch model of no known family: the modules stay, sparse layers are swapped, nothing else changes."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import zeroskip  # noqa: E402
from zeroskip import InvalidArgument, UnsupportedModel  # noqa: E402
from zeroskip.nn import SparseLinear  # noqa: E402
from zeroskip.runtime import fallback  # noqa: E402
from zeroskip.runtime.fallback import TORCH_DENSE  # noqa: E402

OPTIONS = {"budget_s": 0.05, "batch_sizes": (1, 8)}


class Net(torch.nn.Module):
    """Two linear layers, one of them used twice, and a head that shares the embedding's weight."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(11, 32)
        self.inner = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.GELU())
        self.out = torch.nn.Linear(32, 32, bias=False)
        self.head = torch.nn.Linear(32, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        x = self.embedding(ids)
        return self.head(self.out(self.inner(self.inner(x))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        for layer in (net.inner[0], net.out):
            layer.weight[torch.rand(32, 32) < 0.9] = 0
    return net


@pytest.fixture
def sparse_wins(monkeypatch):
    """Makes every sparse kernel twice as fast as torch, so that what is swapped does not depend on the machine."""

    def times(prepared, n, share_s):
        return {name: 2e-6 if name == TORCH_DENSE else 1e-6 for name in prepared}

    monkeypatch.setattr(fallback, "_interleaved", times)


def test_same_answers_and_the_original_untouched(net, sparse_wins):
    fast = zeroskip.compile(net, **OPTIONS)
    ids = torch.randint(0, 11, (2, 5))
    with torch.inference_mode():
        torch.testing.assert_close(fast(ids), net(ids), rtol=1e-5, atol=1e-6)
    assert isinstance(fast.module.inner[0], SparseLinear)
    assert isinstance(fast.module.out, SparseLinear)
    assert type(net.inner[0]) is torch.nn.Linear
    assert fast.module.head.weight is net.embedding.weight


def test_plan_and_report(net, sparse_wins):
    fast = zeroskip.compile(net, **OPTIONS)
    plan = {layer.name: layer for layer in fast.plan}
    assert list(plan) == ["inner.0", "out", "head"]
    assert plan["head"].format == "dense"
    assert plan["inner.0"].sparsity == pytest.approx(1 - np.count_nonzero(net.inner[0].weight.detach()) / 1024)
    assert plan["out"].choices[0].dense_kernel == TORCH_DENSE
    assert "no known family" in fast.report()
    assert [row["name"] for row in fast.report(json=True)] == list(plan)
    assert fast.memory.sparse == sum(plan[name].nbytes for name in ("inner.0", "out"))
    assert fast.memory.dense == plan["head"].nbytes
    assert fast.nbytes == fast.memory.total


def test_dense_stays_where_it_wins(net, monkeypatch):
    monkeypatch.setattr(
        fallback, "_interleaved", lambda prepared, n, s: {k: 1e-6 if k == TORCH_DENSE else 2e-6 for k in prepared}
    )
    fast = zeroskip.compile(net, **OPTIONS)
    assert not any(isinstance(item, SparseLinear) for item in fast.module.modules())
    assert "0.50x dense" in fast.plan[0].choices[0].reason


def test_torch_runs_with_one_thread_only_inside_the_call(net, sparse_wins, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    fast = zeroskip.compile(net, **OPTIONS)
    assert fast.torch_threads == 1
    seen = []
    fast.module.out.register_forward_hook(lambda *args: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fast(torch.tensor([[1, 2]]))
        fast.torch_threads = None
        fast(torch.tensor([[1, 2]]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2]
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert zeroskip.compile(net, **OPTIONS).torch_threads is None


def test_really_measured(net):
    fast = zeroskip.compile(net, **OPTIONS)
    for layer in fast.plan[:2]:
        assert all(choice.time_s > 0 and choice.dense_time_s > 0 for choice in layer.choices)


def test_layers_whose_weights_others_read_are_left(sparse_wins):
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0).eval()
    net = torch.nn.Sequential(layer, torch.nn.Linear(16, 16)).eval()
    with torch.no_grad():
        for item in (layer.linear1, layer.linear2, net[1]):
            item.weight[torch.rand_like(item.weight) < 0.8] = 0
    fast = zeroskip.compile(net, **OPTIONS)
    x = torch.randn(2, 3, 16)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), net(x), rtol=1e-5, atol=1e-5)
    reasons = {layer.name: layer.choices[0].reason for layer in fast.plan}
    assert "TransformerEncoderLayer" in reasons["0.linear1"]
    assert isinstance(fast.module[1], SparseLinear)


def test_what_it_cannot_do_is_said(net, sparse_wins, tmp_path):
    fast = zeroskip.compile(net, **OPTIONS)
    with pytest.raises(UnsupportedModel, match="no known family"):
        fast.save(tmp_path / "x")
    with pytest.raises(InvalidArgument, match="embed"):
        fast.embed(["x"])
    with pytest.raises(UnsupportedModel, match=r"no nn\.Linear"):
        zeroskip.compile(torch.nn.Sequential(torch.nn.ReLU()))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"values": "int3"}, "values"),
        ({"batch_sizes": ()}, "batch_sizes"),
        ({"batch_sizes": (0,)}, "batch_sizes"),
        ({"optimize": "best"}, "optimize"),
        ({"budget_s": 0}, "budget_s"),
        ({"threads": 0}, "threads"),
        ({"kernels": ["nope"]}, "nope"),
        ({"kernels": ["spmm_dense_f32_numpy"]}, "not native"),
    ],
)
def test_wrong_settings_are_refused(net, options, match):
    with pytest.raises(zeroskip.ZeroskipError, match=match):
        zeroskip.compile(net, **options)
