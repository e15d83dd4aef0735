"""Compile, run, save, load: the answers stay those of the model it came from."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("tokenizers")
sys.path.insert(0, str(Path(__file__).parent))

import runtime_models as small  # noqa: E402

import zeroskip  # noqa: E402
from zeroskip import InvalidArgument  # noqa: E402

TEXTS = [
    "the cat sat on the big house",
    "a dog",
    "one two three and the small red tree ran",
    "blue",
    "the unknown word",
]
# Rounding of weights to float16, 2^-11 each, through two blocks of small activations.
HALF = 2e-2


@pytest.fixture(scope="module")
def encoder():
    model = small.bert()
    return model, zeroskip.compile(model, tokenizer=small.word_tokenizer(), **small.OPTIONS)


@pytest.fixture(scope="module")
def decoder():
    model = small.llama()
    tokenizer = small.word_tokenizer(special=False)
    return model, zeroskip.compile(model, tokenizer=tokenizer, values="float32", **small.OPTIONS)


def padded(tokenizer, texts, **options):
    return tokenizer(texts, padding=True, return_tensors="pt", **options)


@pytest.mark.parametrize("side", ["right", "left"])
def test_encoder_called_like_the_model(encoder, side):
    model, fast = encoder
    batch = padded(small.word_tokenizer(), TEXTS, padding_side=side)
    found = fast(**batch).last_hidden_state
    assert isinstance(found, torch.Tensor)
    for row, mask in enumerate(batch["attention_mask"].bool()):
        with torch.inference_mode():
            alone = model(batch["input_ids"][row, mask][None]).last_hidden_state[0]
        torch.testing.assert_close(found[row, mask], alone, rtol=1e-4, atol=1e-5)
        assert not found[row, ~mask].any()


def test_encoder_takes_numpy_and_token_types(encoder):
    model, fast = encoder
    ids = np.array([[2, 5, 6, 3]])
    types = np.array([[0, 0, 1, 1]])
    with torch.inference_mode():
        expected = model(torch.tensor(ids), token_type_ids=torch.tensor(types)).last_hidden_state
    found = fast(ids, None, types).last_hidden_state
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_embed_is_the_mean_of_each_text_alone(encoder):
    model, fast = encoder
    tokenizer = small.word_tokenizer()
    found = fast.embed(TEXTS, batch_size=2)
    with torch.inference_mode():
        expected = [
            model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0).numpy() for text in TEXTS
        ]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(fast.embed(TEXTS, normalize=True), axis=1), 1, rtol=1e-6)
    assert fast.embed(TEXTS[0]).shape == (32,)
    assert fast.embed([]).shape == (0, 32)


def test_long_texts_are_cut(encoder):
    _, fast = encoder
    long = "the cat " * 50
    ids = fast.text.encode([long])[0]
    assert ids.size == 40
    assert ids[-1] == 3
    assert np.isfinite(fast.embed([long])).all()


def test_decoder_logits(decoder):
    model, fast = decoder
    ids = torch.randint(4, 24, (3, 9))
    with torch.inference_mode():
        expected = model(ids).logits
    torch.testing.assert_close(fast(ids).logits, expected, rtol=1e-4, atol=1e-5)


def test_generate_equals_hugging_face_greedy(decoder):
    model, fast = decoder
    prompt = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        expected = model.generate(prompt, max_new_tokens=20, do_sample=False, pad_token_id=0)[0, 4:]
    found = fast.generate(prompt[0], max_tokens=20)
    # Untrained logits lie close together, so compare up to where the two best tokens nearly tie.
    assert found.ids == expected.tolist()
    assert found.prompt_tokens == 4
    assert found.text == fast.text.decode(found.ids)
    assert fast.generate("the cat sat", max_tokens=3).prompt_tokens == 3


def test_generate_streams_samples_and_stops_at_the_context(decoder):
    _, fast = decoder
    pieces = []
    first = fast.generate("the cat", max_tokens=12, temperature=1.0, seed=1, stream=pieces.append)
    assert "".join(pieces) == first.text
    assert fast.generate("the cat", max_tokens=12, temperature=1.0, seed=1).ids == first.ids
    assert fast.generate("the cat", max_tokens=500).stopped == "context"
    with pytest.raises(InvalidArgument, match="empty"):
        fast.generate("")
    with pytest.raises(InvalidArgument, match="chat template"):
        fast.generate("the cat", chat=True)


def test_chat_template_is_applied():
    tokenizer = small.word_tokenizer(special=False)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} and {% endfor %}"
    fast = zeroskip.compile(small.llama(), tokenizer=tokenizer, **small.OPTIONS)
    assert fast.text.chat([{"role": "user", "content": "the cat"}]).tolist() == tokenizer("the cat and").input_ids
    tokenizer.chat_template = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    hostile = zeroskip.compile(small.llama(), tokenizer=tokenizer, **small.OPTIONS)
    with pytest.raises(InvalidArgument, match="chat template"):
        hostile.generate("the cat", chat=True)


def test_perplexity_is_that_of_the_model(decoder):
    model, fast = decoder
    ids = torch.randint(4, 24, (70,))
    losses = []
    for start in (0, 20, 40):
        window = ids[start : start + 20][None]
        with torch.inference_mode():
            losses.append(model(window, labels=window).loss.item())
    found = zeroskip.runtime.perplexity(fast, ids, window=20, windows=5)
    assert found.value == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)
    assert (found.windows, found.tokens) == (3, 57)
    with pytest.raises(InvalidArgument, match="70 tokens"):
        zeroskip.runtime.perplexity(fast, ids, window=100)


def test_agreement_with_itself_and_with_another(decoder):
    model, fast = decoder

    def reference(ids):
        with torch.inference_mode():
            return model(torch.tensor(ids[None].astype(np.int64))).logits[0].numpy()

    ids = np.random.default_rng(0).integers(4, 24, 60)
    same = zeroskip.runtime.agreement(fast, reference, ids, window=20)
    assert abs(same.kl) < 1e-6
    assert same.top1 > 0.95
    other = zeroskip.runtime.agreement(fast, lambda ids: -reference(ids), ids, window=20)
    assert other.kl > same.kl
    assert other.top1 < same.top1


@pytest.mark.parametrize("values", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_save_and_load_change_nothing(tmp_path, kind, values):
    special = kind == "encoder"
    model = small.bert() if special else small.llama()
    tokenizer = small.word_tokenizer(special=special)
    fast = zeroskip.compile(model, tokenizer=tokenizer, values=values, **small.OPTIONS)
    fast.save(tmp_path / "m")
    again = zeroskip.load(tmp_path / "m", verify=True)
    assert (again.kind, again.family, again.values, again.notes) == (kind, fast.family, values, ())
    assert again.plan == fast.plan
    ids = torch.randint(4, 24, (2, 7))
    torch.testing.assert_close(again(ids)[0], fast(ids)[0], rtol=0, atol=0)
    with torch.inference_mode():
        expected = model(ids)[0]
    exact = values == "float32"
    torch.testing.assert_close(fast(ids)[0], expected, rtol=1e-4, atol=1e-5 if exact else 8 * HALF)
    again.save(tmp_path / "m2")
    assert (tmp_path / "m2" / "model.safetensors").read_bytes() == (tmp_path / "m" / "model.safetensors").read_bytes()
    if special:
        np.testing.assert_array_equal(again.embed(TEXTS), fast.embed(TEXTS))
    else:
        assert again.generate("the cat", max_tokens=5).ids == fast.generate("the cat", max_tokens=5).ids


@pytest.fixture
def sparse_wins(monkeypatch):
    """Every sparse kernel seems twice as fast as dense, so that the outcome does not depend on the machine."""

    def times(packs, n, share_s, keep, cold_bytes, **_):
        return {name: 2e-6 if "_dense_" in name else 1e-6 for name in packs}

    monkeypatch.setattr(zeroskip.runtime.measure, "interleaved", times)


def test_sparse_layers_are_saved_sparse_and_memory_says_so(tmp_path, sparse_wins):
    fast = zeroskip.compile(small.bert(), **small.OPTIONS)
    memory = fast.memory
    assert memory.total == fast.nbytes
    assert memory.sparse == sum(layer.nbytes for layer in fast.plan) > 0
    assert memory.dense == 0
    fast.save(tmp_path / "m")
    file = zeroskip.io.TensorFile(tmp_path / "m" / "model.safetensors")
    for layer in fast.plan:
        assert f"{layer.name}::data" in file
        assert layer.name not in file
    ids = torch.randint(4, 24, (2, 7))
    torch.testing.assert_close(zeroskip.load(tmp_path / "m")(ids)[0], fast(ids)[0], rtol=0, atol=0)


@pytest.mark.parametrize(("pattern", "format"), [((2, 4), "nm"), ((16, 1), "bsr")])
def test_structured_zeros_are_stored_as_what_they_are(tmp_path, sparse_wins, pattern, format):
    usable = {kernel.format for kernel in zeroskip.runtime.packing.native_kernels()}
    if format not in usable:
        pytest.skip(f"no native {format} kernel runs here")
    model = small.bert(hidden_size=64, intermediate_size=128)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                rows, columns = module.weight.shape
                if format == "nm":
                    keep = (torch.arange(columns) % 4 < 2).expand(rows, columns)
                else:
                    keep = (torch.rand(rows // 16, columns) < 0.4).repeat_interleave(16, 0)
                module.weight.normal_(std=0.05).mul_(keep)
    fast = zeroskip.compile(model, kernels=_names(format), **small.OPTIONS)
    assert {layer.format for layer in fast.plan} == {format}
    fast.save(tmp_path / "m")
    ids = torch.randint(4, 24, (2, 7))
    with torch.inference_mode():
        torch.testing.assert_close(fast(ids)[0], model(ids)[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(zeroskip.load(tmp_path / "m")(ids)[0], fast(ids)[0], rtol=0, atol=0)


def test_blocks_of_one_row_compile_too():
    """The vector kernels take blocks of four rows; others are for the formats that take any pattern."""
    torch.manual_seed(5)
    layer = torch.nn.Linear(64, 32)
    with torch.no_grad():
        layer.weight.mul_((torch.rand(32, 4) < 0.3).repeat_interleave(16, 1))
    fast = zeroskip.compile(torch.nn.Sequential(layer), **small.OPTIONS)
    x = torch.randn(3, 64)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), layer(x), rtol=1e-5, atol=1e-5)


def _names(format):
    return [kernel.name for kernel in zeroskip.runtime.packing.native_kernels() if kernel.format == format]


def test_tables_are_mapped_not_copied(tmp_path, decoder):
    _, fast = decoder
    fast.save(tmp_path / "m")
    again = zeroskip.load(tmp_path / "m")
    table = again._tensors["model.embed_tokens.weight"]
    assert not table.flags.owndata
    base = table
    while getattr(base, "base", None) is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)


def test_replacing_a_saved_model(tmp_path, encoder, decoder):
    _, fast = encoder
    fast.save(tmp_path / "m")
    with pytest.raises(InvalidArgument, match="overwrite=True"):
        fast.save(tmp_path / "m")
    loaded = zeroskip.load(tmp_path / "m")
    before = loaded.embed(TEXTS)
    loaded.save(tmp_path / "m", overwrite=True)  # over the very file that it is mapped from
    np.testing.assert_array_equal(loaded.embed(TEXTS), before)
    np.testing.assert_array_equal(zeroskip.load(tmp_path / "m").embed(TEXTS), before)
    decoder[1].save(tmp_path / "m", overwrite=True)
    assert zeroskip.load(tmp_path / "m").kind == "decoder"


def test_kernels_of_another_machine_are_replaced_with_a_note(tmp_path, encoder):
    _, fast = encoder
    fast.save(tmp_path / "m")
    path = tmp_path / "m" / "zeroskip.json"
    text = path.read_text()
    for kernel in {name for layer in fast.plan for name in layer.kernels}:
        text = text.replace(f'"kernel": "{kernel}"', f'"kernel": "{kernel.rsplit("_", 1)[0]}_avx1024"')
    path.write_text(text)
    again = zeroskip.load(tmp_path / "m")
    assert "avx1024, which is not known here" in again.notes[0]
    assert again.notes[0] in again.report()
    assert again.plan[0].choices[0].time_s is None
    np.testing.assert_allclose(again.embed(TEXTS), fast.embed(TEXTS), rtol=1e-4, atol=1e-5)


def test_a_plan_from_elsewhere_is_said(tmp_path, encoder):
    _, fast = encoder
    fast.save(tmp_path / "m")
    path = tmp_path / "m" / "zeroskip.json"
    path.write_text(path.read_text().replace('"threads": ', '"threads": 9'))
    assert "measured elsewhere" in zeroskip.load(tmp_path / "m").notes[0]


def test_calls_that_do_not_fit_the_kind(encoder, decoder, tmp_path):
    with pytest.raises(InvalidArgument, match="no decoder"):
        encoder[1].generate("x")
    with pytest.raises(InvalidArgument, match="no encoder"):
        decoder[1].embed(["x"])
    with pytest.raises(InvalidArgument, match="labels"):
        decoder[1]([[5, 6]], labels=[[5, 6]])
    with pytest.raises(InvalidArgument, match="24"):
        encoder[1]([[5, 24]])
    with pytest.raises(InvalidArgument, match="strings"):
        encoder[1].embed([3])
    with pytest.raises(InvalidArgument, match=r"zeroskip\.json"):
        zeroskip.load(tmp_path)


def test_without_a_tokenizer_ids_still_work():
    fast = zeroskip.compile(small.llama(), **small.OPTIONS)
    found = fast.generate([5, 6], max_tokens=3)
    assert len(found.ids) == 3
    assert found.text == ""
    with pytest.raises(InvalidArgument, match="without a tokenizer"):
        fast.generate("the cat")


def test_report_and_rows(encoder):
    _, fast = encoder
    text = fast.report()
    assert "encoder.layer.*.attention.self.query" in text
    assert "weights in memory" in text
    rows = fast.report(json=True)
    assert [row["name"] for row in rows] == [layer.name for layer in fast.plan]
    assert all(choice["reason"] and choice["kernel"] for row in rows for choice in row["choices"])


def test_progress_reaches_the_end_of_each_stage():
    seen = {}
    zeroskip.compile(
        small.bert(), progress=lambda stage, done, total: seen.update({stage: (done, total)}), **small.OPTIONS
    )
    assert list(seen) == ["lower", "read", "measure", "pack"]
    assert all(done == total for done, total in seen.values())


def test_a_head_that_is_left_out_is_said():
    import transformers

    model = transformers.BertForSequenceClassification(small.bert().config).eval()
    fast = zeroskip.compile(model, **small.OPTIONS)
    assert "BertForSequenceClassification" in fast.notes[0]
    ids = torch.randint(4, 24, (1, 6))
    with torch.inference_mode():
        expected = model.bert(ids).last_hidden_state
    torch.testing.assert_close(fast(ids).last_hidden_state, expected, rtol=1e-4, atol=1e-5)


def test_an_unsupported_setting_falls_back_to_torch_modules():
    fast = zeroskip.compile(small.bert(hidden_act="mish"), **small.OPTIONS)
    assert fast.kind == "torch"
    assert any("mish" in note for note in fast.notes)


@pytest.mark.parametrize("values", ["float32", "bfloat16", "float16"])
def test_a_tied_head_is_stored_once(tmp_path, values):
    model = small.llama()
    fast = zeroskip.compile(model, values=values, **small.OPTIONS)
    fast.save(tmp_path / "m")
    file = zeroskip.io.TensorFile(tmp_path / "m" / "model.safetensors")
    assert "model.embed_tokens.weight" in file
    assert "lm_head" not in file
    again = zeroskip.load(tmp_path / "m")
    ids = torch.randint(4, 24, (2, 7))
    torch.testing.assert_close(again(ids)[0], fast(ids)[0], rtol=0, atol=0)
    again.save(tmp_path / "again")
    assert "lm_head" not in zeroskip.io.TensorFile(tmp_path / "again" / "model.safetensors")
    untied = zeroskip.compile(small.llama(tie_word_embeddings=False), values=values, **small.OPTIONS)
    untied.save(tmp_path / "untied")
    assert "lm_head" in zeroskip.io.TensorFile(tmp_path / "untied" / "model.safetensors")


def test_a_model_that_is_read_and_not_mapped_outlives_its_file(encoder, tmp_path):
    _, fast = encoder
    fast.save(tmp_path / "saved")
    loaded = zeroskip.load(tmp_path / "saved", mapped=False)
    with open(tmp_path / "saved" / "model.safetensors", "r+b") as file:
        file.truncate(0)
    np.testing.assert_array_equal(loaded.embed(TEXTS), fast.embed(TEXTS))
    with pytest.raises(InvalidArgument, match="mapped=False"):
        loaded.save(tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_encode_cut_says_which_texts_were_cut(encoder):
    _, fast = encoder
    texts = ["the cat " * 50, "a dog", "the " * 38, "the " * 39]
    ids, cut = fast.text.encode_cut(texts)
    assert cut == [True, False, False, True]
    assert all(np.array_equal(a, b) for a, b in zip(ids, fast.text.encode(texts), strict=True))
    assert fast.text.encode(texts[:1], cut=False)[0].size == 102
    assert fast.text.encode_cut(texts)[1] == cut  # a limit that was lifted is there again


def test_functions_are_not_hidden_by_modules_of_their_name():
    code = (
        "import zeroskip.runtime.load, zeroskip.runtime.compile, zeroskip.runtime\n"
        "from zeroskip.runtime import compile, load\n"
        "import zeroskip\n"
        "assert callable(compile) and callable(load) and zeroskip.runtime.load is load is zeroskip.load\n"
        "assert zeroskip.runtime.packing.__name__ == 'zeroskip.runtime.packing'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(("model", "sizes"), [(small.bert, (4, 16, 256)), (small.llama, (1, 4, 16, 256))])
def test_an_encoder_is_measured_from_four_tokens_on_and_a_decoder_from_one(model, sizes):
    plan = zeroskip.compile(model(), tokenizer=small.word_tokenizer(), budget_s=0.1).plan
    assert {tuple(choice.n for choice in layer.choices) for layer in plan} == {sizes}


def test_sequences_that_run_together_get_what_each_gets_alone():
    model = zeroskip.compile(small.llama(), tokenizer=small.word_tokenizer(), values="float32", **small.OPTIONS)
    sequences = [np.array(ids, dtype=np.int32) for ids in ([4, 5, 6], [7], [8, 9, 10, 11, 12])]
    alone, together = ([model.new_cache(20) for _ in sequences] for _ in range(2))
    for step in range(3):
        given = sequences if step == 0 else [np.array([step + place], dtype=np.int32) for place in range(3)]
        found = model.next_logits_of(given, together)
        assert found.shape == (3, model.vocabulary)
        for row, ids, cache in zip(found, given, alone, strict=True):
            np.testing.assert_allclose(row, model.next_logits(ids, cache), atol=1e-5)
    assert [cache.length for cache in together] == [5, 3, 7]
