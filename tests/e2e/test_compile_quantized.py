"""Compiled models with weights of 8 and 4 bits: what is chosen, stored and computed."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))

import runtime_models as small  # noqa: E402

import zeroskip  # noqa: E402
from zeroskip import DamagedFile, InvalidArgument  # noqa: E402
from zeroskip.cli.main import main  # noqa: E402
from zeroskip.formats import DenseMatrix  # noqa: E402
from zeroskip.quantize import quantize  # noqa: E402
from zeroskip.runtime import packing  # noqa: E402

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17, 18]])
OPTIONS = {**small.OPTIONS, "cache": False}
HERE = {kernel.name for kernel in packing.native_kernels()}
ONE_LANE = pytest.mark.skipif(not any(name.endswith("_n1") for name in HERE), reason="no kernel for one lane runs here")


def linears(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "head" not in n}


def codes_of(weight, dtype, group):
    found = quantize(DenseMatrix(weight.detach().numpy(), "float32"), dtype, group=group, search=dtype == "int4")
    return torch.from_numpy(found.to_dense())


def patterned(model, n=8, m=16):
    """Weights kept n of m, the largest."""
    with torch.no_grad():
        for layer in linears(model).values():
            groups = layer.weight.normal_(std=0.1).view(layer.out_features, -1, m)
            rank = groups.abs().argsort(-1).argsort(-1)
            groups.mul_(rank >= m - n)
    return model


def rounded(model, dtype, group):
    """The same model in torch: weights, table and a tied head rounded as they are stored."""
    with torch.no_grad():
        for layer in linears(model).values():
            layer.weight.copy_(codes_of(layer.weight, dtype, group))
        if hasattr(model, "lm_head"):
            model.lm_head.weight = torch.nn.Parameter(codes_of(model.lm_head.weight, "int8", 0))
        table = model.get_input_embeddings().weight
        table.copy_(table.half().float())
    return model


def rounding_inputs(model):
    """x of each linear layer rounded to 8 bits, a scale for each token."""

    def round_x(layer, args):
        step = args[0].abs().amax(-1, keepdim=True) / 127
        return (torch.round(args[0] / step) * step,)

    for layer in [*linears(model).values(), *([model.lm_head] if hasattr(model, "lm_head") else [])]:
        layer.register_forward_pre_hook(round_x)
    return model


def expected(model):
    with torch.inference_mode():
        return model(IDS)[0]


def prefer(monkeypatch, *wanted):
    """Make kernels whose names begin so the fastest, the first of them most of all; by batch size with {n: names}."""

    def times(packs, n, share_s, keep, cold_bytes, **_):
        names = wanted[0][n] if isinstance(wanted[0], dict) else wanted
        rank = {name: next((i for i, w in enumerate(names) if name.startswith(w)), 9) for name in packs}
        return {name: 1e-6 * 4.0 ** rank[name] for name in packs}

    monkeypatch.setattr(zeroskip.runtime.measure, "interleaved", times)


@pytest.mark.parametrize(
    ("dtype", "group", "n", "m"), [("int8", 0, 8, 16), ("int8", 128, 4, 8), ("int4", 32, 2, 4), ("int4", 64, 5, 16)]
)
def test_patterns_run_as_codes_with_x_rounded(tmp_path, monkeypatch, dtype, group, n, m):
    prefer(monkeypatch, "spmm_nm_i8_i32acc", "spmm_nm_i4_i32acc")
    sizes = {"hidden_size": 64, "intermediate_size": 128}
    fast = zeroskip.compile(
        patterned(small.bert(**sizes), n, m), tokenizer=small.word_tokenizer(), values=dtype, group=group, **OPTIONS
    )
    assert {(layer.format, layer.values, layer.group) for layer in fast.plan} == {("nm", dtype, group)}
    assert all("_i32acc_" in name for layer in fast.plan for name in layer.kernels)
    assert "x rounded to 8 bits; compared: nm i" in fast.plan[0].choices[0].reason
    assert "dense f32" in fast.plan[0].choices[0].reason
    assert "12 of 12 linear layers round their input to 8 bits" in fast.report()
    model = rounded(patterned(small.bert(**sizes), n, m), dtype, group)
    exact = expected(model)
    nearly = expected(rounding_inputs(model))
    found = fast(IDS)[0]
    # An x that lies between two codes may go either way: few do, and then by one step.
    assert (found - nearly).abs().mean() < 0.1 * (exact - nearly).abs().mean()
    fast.save(tmp_path / "m")
    file = zeroskip.io.TensorFile(tmp_path / "m" / "model.safetensors")
    assert file.code(f"{fast.plan[0].name}::data") == {"int8": "I8", "int4": "U8"}[dtype]
    assert file.code("embeddings.word_embeddings.weight") == "F16"
    again = zeroskip.load(tmp_path / "m")
    assert again.notes == ()
    assert again.plan == fast.plan
    assert again.memory == fast.memory
    torch.testing.assert_close(again(IDS)[0], found, rtol=0, atol=0)


@pytest.mark.parametrize(("dtype", "group"), [("int8", 0), ("int8", 64), ("int4", 32)])
def test_with_float32_activations_only_the_weights_are_rounded(tmp_path, dtype, group):
    model = patterned(small.bert(hidden_size=64, intermediate_size=128))
    fast = zeroskip.compile(model, values=dtype, group=group, activations="float32", **OPTIONS)
    assert not any("_i32acc_" in name for layer in fast.plan for name in layer.kernels)
    assert "8 bits" not in fast.report()
    assert {layer.values for layer in fast.plan} == {dtype}
    torch.testing.assert_close(fast(IDS)[0], expected(rounded(model, dtype, group)), rtol=1e-4, atol=1e-5)
    fast.save(tmp_path / "m")
    torch.testing.assert_close(zeroskip.load(tmp_path / "m")(IDS)[0], fast(IDS)[0], rtol=0, atol=0)


@pytest.mark.parametrize("form", ["csr", "bitmask", "nm"])
@pytest.mark.parametrize(("dtype", "group"), [("int8", 0), ("int8", 64), ("int4", 32)])
def test_every_pattern_runs_as_codes_with_x_as_it_is(tmp_path, monkeypatch, form, dtype, group):
    wanted = f"spmm_{form}_{dtype.replace('nt', '')}_"
    prefer(monkeypatch, wanted)
    sizes = {"hidden_size": 64, "intermediate_size": 128}
    model = patterned(small.bert(**sizes)) if form == "nm" else small.bert(**sizes)
    exact = expected(rounded(patterned(small.bert(**sizes)) if form == "nm" else small.bert(**sizes), dtype, group))
    fast = zeroskip.compile(model, values=dtype, group=group, activations="float32", **OPTIONS)
    assert {name for layer in fast.plan for name in layer.kernels if not name.startswith(wanted)} == set()
    assert not any("_i32acc_" in name for layer in fast.plan for name in layer.kernels)
    assert "dequantised" not in fast.report()
    torch.testing.assert_close(fast(IDS)[0], exact, rtol=1e-4, atol=1e-5)
    fast.save(tmp_path / "m")
    again = zeroskip.load(tmp_path / "m")
    assert again.notes == ()
    torch.testing.assert_close(again(IDS)[0], fast(IDS)[0], rtol=0, atol=0)


def test_fixed_point_runs_a_model_and_the_report_says_so(tmp_path, monkeypatch):
    wanted = "spmm_csr_f32_i16acc_"
    prefer(monkeypatch, wanted)
    model = patterned(small.bert(hidden_size=64, intermediate_size=128))
    exact = expected(model)
    fast = zeroskip.compile(model, activations="int16", **OPTIONS)
    assert {name for layer in fast.plan for name in layer.kernels if not name.startswith(wanted)} == set()
    assert "16 bits, with a scale a token" in fast.report()
    torch.testing.assert_close(fast(IDS)[0], exact, rtol=1e-2, atol=1e-2)
    assert (fast(IDS)[0] - exact).abs().max() > 1e-5, "nothing was rounded"
    fast.save(tmp_path / "m")
    again = zeroskip.load(tmp_path / "m")
    assert again.notes == ()
    torch.testing.assert_close(again(IDS)[0], fast(IDS)[0], rtol=0, atol=0)


@ONE_LANE
@pytest.mark.parametrize("form", ["csr", "bitmask"])
def test_other_patterns_have_one_packing_for_a_token_and_one_for_many(tmp_path, monkeypatch, form):
    prefer(monkeypatch, {1: [f"spmm_{form}_i8", "spmm_dense_f"], 16: ["spmm_dense_i8"]})
    model, tokenizer = small.llama(), small.word_tokenizer(special=False)
    fast = zeroskip.compile(model, tokenizer=tokenizer, values="int8", **OPTIONS)
    layer, head = fast.plan[0], fast.plan[-1]
    assert [choice.kernel.split("_i8_")[0] for choice in layer.choices] == [f"spmm_{form}", "spmm_dense"]
    assert "packed once more" in layer.choices[0].reason + layer.choices[1].reason
    assert ["8 bits" in choice.reason for choice in layer.choices] == [False, True]
    assert (layer.format, layer.values, layer.group) in [("csr", "int8", 0), ("bitmask", "int8", 0)]
    assert (head.format, head.values, head.group) == ("dense", "int8", 0)
    model = rounded(small.llama(), "int8", 0)
    one = [fast([[token]]).logits[0, 0] for token in (5, 9, 20)]
    with torch.inference_mode():
        want = [model(torch.tensor([[token]])).logits[0, 0] for token in (5, 9, 20)]
    np.testing.assert_allclose(one, torch.stack(want), rtol=1e-4, atol=1e-5)
    nearly = expected(rounding_inputs(model))
    assert (fast(IDS)[0] - nearly).abs().mean() < 1e-3 * nearly.abs().mean()
    fast.save(tmp_path / "m")
    again = zeroskip.load(tmp_path / "m")
    assert again.generate("the cat", max_tokens=8).ids == fast.generate("the cat", max_tokens=8).ids
    torch.testing.assert_close(again(IDS)[0], fast(IDS)[0], rtol=0, atol=0)
    again.save(tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "m" / "model.safetensors"
    ).read_bytes()


def test_dense_weights_become_codes_too_where_those_are_faster(tmp_path, monkeypatch):
    prefer(monkeypatch, "spmm_dense_i8")
    model = small.llama()
    with torch.no_grad():
        for layer in linears(model).values():
            layer.weight.normal_(std=0.1)
    fast = zeroskip.compile(model, values="int8", **OPTIONS)
    assert {layer.format for layer in fast.plan} == {"dense"}
    assert all("_dense_i8_" in name for layer in fast.plan[:-1] for name in layer.kernels)
    assert "no sparse kernel is a candidate" in fast.plan[0].choices[0].reason
    prefer(monkeypatch, "spmm_dense_f")
    floats = zeroskip.compile(model, values="int8", **OPTIONS)
    assert {layer.values for layer in floats.plan[:-1]} == {"int8"}
    assert not any("_i32acc_" in name for layer in floats.plan for name in layer.kernels)
    for compiled in (fast, floats):
        compiled.save(tmp_path / "m", overwrite=True)
        torch.testing.assert_close(zeroskip.load(tmp_path / "m")(IDS)[0], compiled(IDS)[0], rtol=0, atol=0)


@pytest.mark.parametrize(("activations", "stored"), [("int8", "int8"), ("float32", "float16")])
def test_a_tied_head_has_codes_of_its_own_where_x_may_be_rounded(tmp_path, activations, stored):
    fast = zeroskip.compile(small.llama(), values="int4", activations=activations, **OPTIONS)
    assert (fast.plan[-1].name, fast.plan[-1].values) == ("lm_head", stored)
    fast.save(tmp_path / "m")
    file = zeroskip.io.TensorFile(tmp_path / "m" / "model.safetensors")
    assert file.code("model.embed_tokens.weight") == "F16"
    assert ("lm_head::data" in file) == (stored == "int8")
    torch.testing.assert_close(zeroskip.load(tmp_path / "m")(IDS)[0], fast(IDS)[0], rtol=0, atol=0)


@ONE_LANE
def test_a_machine_without_the_kernels_runs_the_weights_dequantised_and_says_so(tmp_path, monkeypatch):
    prefer(monkeypatch, {1: ["spmm_bitmask_i8", "spmm_dense_i8"], 16: ["spmm_dense_i8"]})
    fast = zeroskip.compile(small.llama(), values="int8", **OPTIONS)
    fast.save(tmp_path / "m")
    plain = [k for k in packing.native_kernels() if k.dtype == "float32" and not k.name.endswith("_n1")]
    monkeypatch.setattr(packing, "native_kernels", lambda: plain)
    path = tmp_path / "m" / "zeroskip.json"
    text = path.read_text()
    for kernel in {name for layer in fast.plan for name in layer.kernels if "_i8_" in name}:
        text = text.replace(f'"kernel": "{kernel}"', f'"kernel": "{kernel}x"')
    path.write_text(text)
    again = zeroskip.load(tmp_path / "m")
    assert any("which is not known here; the int8 weights run dequantised" in note for note in again.notes)
    assert again.plan[0].values == "int8"
    assert not any("_i32acc_" in name for layer in again.plan for name in layer.kernels)
    torch.testing.assert_close(
        torch.as_tensor(again(IDS)[0]), expected(rounded(small.llama(), "int8", 0)), rtol=1e-3, atol=1e-3
    )


def test_a_stand_in_never_starts_to_round_x():
    name, why = packing.stand_in("spmm_csr_i8_avx1024_n1", "dense", "int8")
    assert "_i32acc_" not in name
    assert "avx1024" in why
    integer, _ = packing.stand_in("spmm_dense_i8_i32acc_avx1024", "dense", "int8")
    assert integer.startswith("spmm_dense_i8_i32acc_")


def test_kernels_that_do_not_take_the_stored_codes_are_refused(tmp_path, monkeypatch):
    prefer(monkeypatch, "spmm_nm_i")
    fast = zeroskip.compile(patterned(small.bert()), values="int8", group=32, **OPTIONS)
    fast.save(tmp_path / "m")
    path = tmp_path / "m" / "zeroskip.json"
    own = fast.plan[0].choices[0].kernel
    rows = {name for name in HERE if name.startswith("spmm_csr_i8_") and name.endswith("_n1")}
    names = {name for name in HERE if name.startswith(("spmm_nm_i4_", "spmm_csr_i4_"))} | rows
    assert names
    for name in names:
        damaged = path.read_text().replace(f'"kernel": "{own}"', f'"kernel": "{name}"')
        (tmp_path / "m" / "zeroskip.json").write_text(damaged)
        with pytest.raises(DamagedFile, match="cannot be packed"):
            zeroskip.load(tmp_path / "m")
        path.write_text(damaged.replace(f'"kernel": "{name}"', f'"kernel": "{own}"'))


def test_a_model_of_no_family_swaps_its_layers_for_codes(monkeypatch):
    from zeroskip.runtime import fallback

    monkeypatch.setattr(
        fallback,
        "_interleaved",
        lambda prepared, n, s: {k: 1e-6 if "_nm_i8_" in k else 2e-6 for k in prepared},
    )
    torch.manual_seed(1)
    model = patterned(torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.GELU()))
    x = torch.randn(4, 64)
    fast = zeroskip.compile(model, values="int8", **OPTIONS)
    assert (fast.plan[0].format, fast.plan[0].values, fast.plan[0].group) == ("nm", "int8", 0)
    with torch.no_grad():
        model[0].weight.copy_(codes_of(model[0].weight, "int8", 0))
        want = rounding_inputs(model)(x)
    assert (fast(x) - want).abs().mean() < 1e-4


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"values": "int3"}, "values is 'int3'"),
        ({"values": "int8", "group": 16}, "group is 16"),
        ({"values": "float16", "group": 32}, "have no scales"),
        ({"group": 0}, "have no scales"),
        ({"values": "int8", "activations": "int4"}, "activations is 'int4'"),
        ({"values": "float32", "activations": "int8"}, "takes weights in codes"),
        ({"values": "float16", "activations": "bfloat16"}, "takes weights in bfloat16"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options, match):
    with pytest.raises(InvalidArgument, match=match):
        zeroskip.compile(small.bert(), **options)


def test_a_weight_that_has_no_code_is_refused_with_the_name_of_its_layer():
    model = small.bert()
    with torch.no_grad():
        model.encoder.layer[1].output.dense.weight[3, 5] = float("inf")
    with pytest.raises(InvalidArgument, match=r"layer 'encoder.layer.1.output.dense': .*holds inf in row 3"):
        zeroskip.compile(model, values="int8", **OPTIONS)


def test_the_command_line(tmp_path, capsys, monkeypatch):
    prefer(monkeypatch, "spmm_nm_i")
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path / "cache"))
    model, folder, out = patterned(small.bert()), tmp_path / "bert", tmp_path / "out"
    model.save_pretrained(folder)
    small.word_tokenizer().save_pretrained(folder)
    words = ["compile", str(folder), "-o", str(out), "--budget", "0.1", "--json", "--quiet", "--fresh"]
    assert main([*words, "--group", "64"]) == 2
    assert main([*words, "--values", "bfloat16", "--activations", "int8"]) == 2
    assert main([*words, "--values", "float32", "--activations", "bfloat16"]) == 2
    assert main([*words, "--values", "int8", "--group", "0", "--activations", "int8"]) == 0
    row = json.loads(capsys.readouterr().out)["plan"][0]
    assert (row["values"], row["group"], row["format"]) == ("int8", 0, "nm")
    assert {choice["activations"] for choice in row["choices"]} == {"int8"}
    assert main(["inspect", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "nm int8" in shown
    assert "12 of 12 linear layers round their input to 8 bits" in shown
    (tmp_path / "lines.txt").write_text("the cat sat\na dog ran\none two three\nthe big house\n")
    words = ["eval", str(out), "--against", str(folder), "--text", str(tmp_path / "lines.txt"), "--neighbours", "2"]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cosine"] > 0.99
