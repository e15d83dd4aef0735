"""Pruning whole models: every family, tied weights, transposed weights, refusals, interruption."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import zeroskip  # noqa: E402
from zeroskip import models  # noqa: E402
from zeroskip._errors import InvalidArgument, ShapeError, UnsupportedModel  # noqa: E402
from zeroskip.models.stream import capture, gather  # noqa: E402
from zeroskip.sparsify import InputStats, registry  # noqa: E402

from .conftest import MAKERS, make, token_batches  # noqa: E402


def zeros(layer: models.LinearLayer) -> float:
    return float((layer.parameter == 0).double().mean())


def outputs(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return model.base_model(**batch).last_hidden_state


def test_it_is_the_function_of_the_package() -> None:
    assert zeroskip.prune is zeroskip.models.prune


@pytest.mark.parametrize("method", ["sparsegpt", "wanda", "magnitude"])
def test_every_family_is_pruned_as_promised(family_model: tuple[str, Any], method: str) -> None:
    name, model = family_model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    steps: list[tuple[str, int, int]] = []
    report = models.prune(
        model,
        method=method,
        sparsity=0.5,
        calibration=token_batches(padded=True),
        refit="none",
        progress=lambda *step: steps.append(step),
    )
    _, family, per_block = MAKERS[name]
    layers = [layer for block in models.blocks(model) for layer in block.linears]
    assert models.load(model).family == family
    assert len(layers) == 2 * per_block == len(report.layers)
    assert [layer.name for layer in layers] == [layer.name for layer in report.layers]
    assert all(zeros(layer) == 0.5 for layer in layers)
    assert report.achieved == 0.5
    pruned = {id(layer.parameter) for layer in layers}
    for key, value in model.state_dict(keep_vars=True).items():
        if id(value) not in pruned:
            assert torch.equal(value, before[key]), f"{key} is no layer to prune, but it changed"
    assert steps[-1] == ("prune", steps[-1][2], steps[-1][2])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_families_table_names_the_layers_of_a_block(family_model: tuple[str, Any]) -> None:
    _, model = family_model
    family = models.family_of_model(model)
    assert family is not None
    for block in models.blocks(model):
        assert {layer.name for layer in block.linears} == {f"{block.name}.{part}" for part in family.linears}
        assert all(layer.transposed == family.transposed for layer in block.linears)


def test_streaming_gives_what_the_model_gives(family_model: tuple[str, Any]) -> None:
    """Block by block must be the same computation as the whole model: masks, positions, caches and all."""
    _, model = family_model
    batches = token_batches(3, padded=True)
    stages = models.blocks(model)
    seen: dict[int, list[torch.Tensor]] = {}
    hooks = [
        block.module.register_forward_hook(
            lambda _m, _i, out, index=index: seen.setdefault(index, []).append(
                out[0] if isinstance(out, tuple) else out
            )
        )
        for index, block in enumerate(stages)
    ]
    for batch in batches:
        outputs(model, batch)
    for hook in hooks:
        hook.remove()
    stream = capture(model, stages, batches)
    for index, block in enumerate(stages):
        with torch.no_grad():
            stream.hidden = [stream.run(block.module, index, at, hidden) for at, hidden in enumerate(stream.hidden)]
        for ours, theirs, batch in zip(stream.hidden, seen[index], batches, strict=True):
            real = batch["attention_mask"].bool()
            torch.testing.assert_close(ours[real], theirs[real])
    assert "forward" not in vars(stages[0].module), "the patched forward was left behind"


def test_statistics_leave_padding_out_and_are_shared_where_inputs_are() -> None:
    model = make("bert")
    batches = token_batches(3, padded=True)
    stages = models.blocks(model)
    stream = capture(model, stages, batches)
    passes = [lambda at=at: stream.run(stages[0].module, 0, at, stream.hidden[at]) for at in range(3)]
    stats = gather(stages[0].linears, passes, stream.masks, full=True)
    by_name = {name.removeprefix("encoder.layer.0."): value for name, value in stats.items()}
    real = sum(int(batch["attention_mask"].sum()) for batch in batches)
    assert {value.tokens for value in stats.values()} == {real}
    assert by_name["attention.self.query"] is by_name["attention.self.value"]
    assert by_name["attention.self.query"] is not by_name["intermediate.dense"]
    rows = torch.cat([h[b["attention_mask"].bool()] for h, b in zip(stream.hidden, batches, strict=True)])
    torch.testing.assert_close(by_name["attention.self.query"].gram, rows.T @ rows, rtol=1e-4, atol=1e-3)


def test_each_block_is_calibrated_on_the_pruned_ones_before_it() -> None:
    model, batches = make("llama"), token_batches()
    dense = copy.deepcopy(model)
    models.prune(model, method="wanda", sparsity=0.5, calibration=batches, refit="none")
    # By hand: prune block 0 alone, look at what reaches block 1, and score block 1 with that.
    half = copy.deepcopy(dense)
    models.prune(half, method="wanda", sparsity=0.5, calibration=batches, refit="none", include="layers.0.")
    layer = models.blocks(half)[1].linears[0]
    stats = InputStats(layer.shape[1], full=False)
    hook = layer.module.register_forward_pre_hook(lambda _m, inputs: stats.add(inputs[0]))
    for batch in batches:
        outputs(half, batch)
    hook.remove()
    expected = registry.get("wanda").prune(
        layer.weight(), stats, sparsity=0.5, pattern="unstructured", scope=None, seed=0
    )
    assert torch.equal(models.blocks(model)[1].linears[0].weight(), expected.weight)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "opt"])
def test_tied_weights_stay_tied_and_dense(name: str) -> None:
    model = make(name)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    assert head.weight is embedding.weight
    before = embedding.weight.clone()
    models.prune(model, method="sparsegpt", sparsity=0.7, calibration=token_batches())
    assert head.weight is embedding.weight
    assert torch.equal(before, embedding.weight)
    with pytest.raises(InvalidArgument, match="tied to an embedding"):
        models.prune(model, method="magnitude", include=["lm_head"])


def test_conv1d_is_pruned_along_its_inputs() -> None:
    model = make("gpt2")
    models.prune(model, method="wanda", pattern="2:4", calibration=token_batches(), refit="none")
    for block in models.blocks(model):
        for layer in block.linears:
            assert layer.transposed
            out_features, in_features = layer.shape
            assert tuple(layer.parameter.shape) == (in_features, out_features)
            kept = (layer.parameter != 0).T.reshape(out_features, in_features // 4, 4).sum(2)
            assert (kept == 2).all()


@pytest.mark.parametrize("pattern", ["2:4", "8:16", "block:16x1", "block:4x4"])
@pytest.mark.parametrize("refit", ["none", "block"])
def test_patterns_hold_in_a_whole_model(pattern: str, refit: str) -> None:
    model = make("bert")
    report = models.prune(model, pattern=pattern, calibration=token_batches(), refit=refit)
    assert report.refit == refit
    assert report.achieved == 0.5
    for block in models.blocks(model):
        for layer in block.linears:
            kept = layer.weight() != 0
            if ":" in pattern and "block" not in pattern:
                n, m = map(int, pattern.split(":"))
                assert (kept.reshape(-1, m).sum(1) <= n).all()
            assert zeros(layer) == 0.5


@pytest.mark.parametrize("name", ["bert", "mpnet", "distilbert", "roberta", "gpt2", "llama"])
def test_refit_brings_the_output_closer_to_dense(name: str) -> None:
    dense, batches = make(name), token_batches(6, padded=True)
    held_out = token_batches(8, padded=True)[6:]
    lost = {}
    for refit in ("none", "block"):
        model = copy.deepcopy(dense)
        models.prune(model, sparsity=0.6, calibration=batches, refit=refit)
        assert all(abs(zeros(layer) - 0.6) < 0.001 for block in models.blocks(model) for layer in block.linears)
        assert not any(parameter.grad is not None for parameter in model.parameters())
        assert all(parameter.requires_grad for parameter in model.parameters())
        lost[refit] = sum(
            float((outputs(model, batch) - outputs(dense, batch))[batch["attention_mask"].bool()].square().sum())
            for batch in held_out
        )
    assert lost["block"] < lost["none"]


def test_refit_leaves_what_was_excluded_alone() -> None:
    model = make("bert")
    before = copy.deepcopy(model.state_dict())
    models.prune(model, calibration=token_batches(), exclude=["*.query", "intermediate"], refit="block")
    for key, value in model.state_dict().items():
        if ".query." in key or ".intermediate." in key or key.startswith(("embeddings", "pooler")):
            assert torch.equal(value, before[key]), key


def test_auto_refits_encoders_only() -> None:
    for name, expected in (("bert", "block"), ("llama", "none")):
        assert models.prune(make(name), sparsity=0.5, calibration=token_batches()).refit == expected
    assert models.prune(make("bert"), method="magnitude").refit == "none"


@pytest.mark.parametrize("method", ["magnitude", "random"])
def test_global_scope_is_exact_over_all_layers(method: str) -> None:
    model = make("bert")
    for layer in models.blocks(model)[0].linears:
        layer.assign(layer.weight() * 0.5)
    report = models.prune(model, method=method, sparsity=0.6, scope="global")
    total = sum(layer.shape[0] * layer.shape[1] for layer in report.layers)
    dropped = sum(int((layer.parameter == 0).sum()) for block in models.blocks(model) for layer in block.linears)
    assert dropped == int(0.6 * total + 0.5)
    assert report.calibration == "none"
    if method == "magnitude":  # the block of small weights loses more
        assert report.layers[0].sparsity > 0.7 > 0.55 > report.layers[-1].sparsity


def test_include_and_exclude() -> None:
    names = [layer.name for layer in models.prunable(make("llama"))]
    assert [n for n in names if ".mlp." in n] == [x.name for x in models.prunable(make("llama"), include="*.mlp.*")]
    assert [n for n in names if ".mlp." not in n] == [x.name for x in models.prunable(make("llama"), exclude="mlp")]
    with pytest.raises(InvalidArgument, match="matches no linear layer"):
        models.prunable(make("llama"), include=["*.nothing"])
    with pytest.raises(InvalidArgument, match="leave no layer"):
        models.prunable(make("llama"), exclude=["*"])


def test_layers_outside_the_blocks_can_be_included() -> None:
    model = make("bert_classifier")
    report = models.prune(model, include=["pooler", "*.0.attention.*"], calibration=token_batches(), refit="none")
    assert [layer.name for layer in report.layers][-1] == "bert.pooler.dense"
    assert float((model.bert.pooler.dense.weight == 0).double().mean()) == 0.5
    assert not (model.classifier.weight == 0).any()


class Plain(torch.nn.Module):
    """A torch model that zeroskip has never seen, with a weight that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(16, 32)
        self.second = torch.nn.Linear(32, 32)
        self.third = torch.nn.Linear(32, 32)
        self.third.weight = self.second.weight
        self.last = torch.nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        return self.last(torch.relu(self.third(torch.relu(self.second(x)))))


@pytest.mark.parametrize("method", ["sparsegpt", "wanda", "magnitude"])
def test_any_torch_model_is_pruned(method: str) -> None:
    torch.manual_seed(0)
    model = Plain()
    report = models.prune(model, method=method, sparsity=0.5, calibration=[torch.randn(20, 16) for _ in range(3)])
    assert [layer.name for layer in report.layers] == ["first", "second", "last"]
    assert all((module.weight == 0).double().mean() == 0.5 for module in (model.first, model.second, model.last))
    assert model.third.weight is model.second.weight
    assert any("third shares its weight with second" in note for note in report.notes)


def test_a_model_in_training_comes_back_in_training() -> None:
    model = make("bert").train()
    model.encoder.layer[0].eval()
    models.prune(model, calibration=token_batches())
    assert model.training
    assert not model.encoder.layer[0].training
    assert model.encoder.layer[1].training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.0}, "outside"),
        ({"sparsity": -0.5}, "outside"),
        ({"sparsity": 60}, "outside"),
        ({"method": "obd"}, "choose one of"),
        ({"pattern": "2to4"}, "not known"),
        ({"pattern": "2:4", "sparsity": 0.25}, "at least 0.5"),
        ({"scope": "global"}, "does not have"),
        ({"refit": "twice"}, "choose one of"),
        ({"include": ["nothing"]}, "matches no linear layer"),
        ({"samples": 0}, "samples"),
        ({"calibration": []}, "empty"),
        ({"calibration": ["some text"]}, "no tokenizer"),
        ({"calibration": [object()]}, "pass texts"),
        ({"calibration": "no-such-name"}, "is no file"),
    ],
)
def test_bad_arguments_are_refused_and_the_model_is_whole(arguments: dict[str, Any], message: str) -> None:
    model = make("llama")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InvalidArgument) as caught:
        models.prune(model, **{"calibration": token_batches(1), **arguments})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("pattern", ["2:5", "block:7x1"])
def test_a_pattern_that_does_not_divide_names_the_layer_before_anything_is_touched(pattern: str) -> None:
    model = make("llama")
    with pytest.raises(ShapeError, match=r"model\.layers\.0\.self_attn\.q_proj"):
        models.prune(model, pattern=pattern, calibration=token_batches(1))
    assert not any((layer.parameter == 0).any() for layer in models.prunable(model))


def test_nan_in_calibration_and_in_weights() -> None:
    with pytest.raises(InvalidArgument, match="NaN"):
        models.prune(Plain(), calibration=[torch.full((4, 16), float("nan"))])
    model = make("bert")
    model.embeddings.word_embeddings.weight.data[:] = float("nan")
    with pytest.raises(InvalidArgument, match="calibration activations hold NaN"):
        models.prune(model, calibration=token_batches())
    model = make("bert")
    model.encoder.layer[1].output.dense.weight.data[0, 0] = float("inf")
    with pytest.raises(InvalidArgument, match=r"layer\.1\.output\.dense holds NaN or Inf"):
        models.prune(model, calibration=token_batches())
    assert not any((layer.parameter == 0).any() for layer in models.prunable(model))


def test_models_that_cannot_be_pruned() -> None:
    with pytest.raises(UnsupportedModel, match="llama"):
        models.prune(torch.nn.Conv2d(3, 3, 3))
    with pytest.raises(InvalidArgument, match=r"models\.load"):
        models.prune("minilm")
    with pytest.raises(InvalidArgument, match="SentenceTransformer"):
        models.prune({"weights": 1})
    with pytest.raises(InvalidArgument, match="does not take the calibration data"):
        models.prune(Plain(), calibration=[torch.randn(4, 3)])


def test_interruption_leaves_no_hook_and_no_patch_behind() -> None:
    model = make("bert")

    def stop(_stage: str, done: int, _total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.prune(model, calibration=token_batches(), progress=stop)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in vars(module)
    models.prune(model, calibration=token_batches())  # and it can be pruned again
