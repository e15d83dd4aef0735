"""A sparsity for each layer: names and globs, patterns, what is left alone, refusals."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from zeroskip import models  # noqa: E402
from zeroskip._errors import InvalidArgument  # noqa: E402

from .conftest import make, token_batches  # noqa: E402

NAME = "encoder.layer.0.output.dense"


def zeros(model: Any) -> dict[str, float]:
    return {layer.name: float((layer.weight() == 0).double().mean()) for layer in models.prunable(model)}


def test_each_layer_gets_its_own_and_the_rest_stays() -> None:
    model = make("bert")
    before = {layer.name: layer.weight().clone() for layer in models.prunable(model)}
    wanted = {NAME: 0.75, "*.output.dense": 0.25, "*.intermediate.dense": "8:16", "*.query": 0.0}
    report = models.prune(model, sparsity=wanted, calibration=token_batches(padded=True))
    found = zeros(model)
    assert found[NAME] == 0.75, "the first entry that matches counts"
    assert found["encoder.layer.1.output.dense"] == 0.25
    for layer in models.prunable(model):
        if layer.name.endswith("intermediate.dense"):
            assert ((layer.weight() != 0).reshape(-1, 16).sum(1) == 8).all()
        if layer.name.rpartition(".")[2] in ("query", "key", "value"):
            assert torch.equal(layer.weight(), before[layer.name]), f"{layer.name} was not to be touched"
    assert report.sparsity == wanted
    assert "by layer" in str(report)
    assert {layer.name: layer.sparsity for layer in report.layers} == {k: v for k, v in found.items() if v}


@pytest.mark.parametrize(
    ("sparsity", "words"),
    [
        ({"*.nothing": 0.5}, "'\\*.nothing', which matches no linear layer"),
        ({"*.query": 1.5}, r"sparsity\['\*.query'\]: sparsity is 1.5, outside"),
        ({"*.query": "unstructured"}, "says not how sparse"),
        ({"*.query": "8-16"}, "'8-16' is not known"),
        ({"*.query": True}, "not a number"),
        ({3: 0.5}, "has the key 3"),
        ({"*.query": 0.0}, "leaves every layer as it is"),
        ({}, "leaves every layer as it is"),
    ],
)
def test_refused_before_anything_is_touched(sparsity: Any, words: str) -> None:
    model = make("bert")
    with pytest.raises(InvalidArgument, match=words):
        models.prune(model, sparsity=sparsity, calibration=token_batches())
    assert not any(zeros(model).values())


def test_global_scope_has_one_sparsity() -> None:
    with pytest.raises(InvalidArgument, match="scope is 'global'"):
        models.prune(make("bert"), method="magnitude", scope="global", sparsity={"*.query": 0.5})


@pytest.mark.parametrize("refit", ["none", "block"])
def test_zeros_stay_zeros(refit: str) -> None:
    """A group of N:M is chosen once the columns before it have been made up for, zeros among them."""
    model = make("bert")
    models.prune(model, sparsity=0.4, method="random", calibration=token_batches())
    before = {layer.name: layer.weight() == 0 for layer in models.prunable(model)}
    batches = token_batches(padded=True)
    models.prune(model, sparsity={NAME: "8:16"}, keep_zeros=True, refit=refit, calibration=batches)
    for layer in models.prunable(model):
        after = layer.weight() == 0
        assert after[before[layer.name]].all(), f"{layer.name} has entries where it had zeros"
        assert layer.name == NAME or torch.equal(after, before[layer.name])
    assert zeros(model)[NAME] >= 0.5
