"""Every family against the Hugging Face model that it was lowered from.

The bound: the reference is the torch model in float64, the yardstick the error that the same torch model makes in
float32. Both sum the same products in float32 in their own orders, so neither is owed more than the other; a factor of
4 covers the luck of single roundings. A forgotten bias, a wrong position or mask is off by thousands of times that.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from zeroskip import _native  # noqa: E402
from zeroskip._errors import InvalidArgument, MissingDependency, UnsupportedModel  # noqa: E402
from zeroskip.runtime.graph import Graph  # noqa: E402
from zeroskip.runtime.lowering import Lowered, can_lower, lower  # noqa: E402
from zeroskip.runtime.program import Program  # noqa: E402

Array = np.ndarray[Any, Any]

LENGTHS = (1, 5, 64, 130, 7, 200, 63)
ENCODER = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 72,
    "vocab_size": 99,
}
DECODER = {**ENCODER, "max_position_embeddings": 300}
LLAMA = {**DECODER, "num_attention_heads": 6, "num_key_value_heads": 2}


def _bert() -> Any:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**ENCODER, max_position_embeddings=300, hidden_act="gelu"))


def _bert_masked_lm() -> Any:
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(BertConfig(**ENCODER, max_position_embeddings=300, hidden_act="gelu_new"))


def _roberta() -> Any:
    from transformers import RobertaConfig, RobertaModel

    return RobertaModel(RobertaConfig(**ENCODER, max_position_embeddings=302, pad_token_id=1, type_vocab_size=1))


def _xlm_roberta() -> Any:
    from transformers import XLMRobertaConfig, XLMRobertaModel

    return XLMRobertaModel(XLMRobertaConfig(**ENCODER, max_position_embeddings=302, pad_token_id=1, hidden_act="relu"))


def _mpnet() -> Any:
    from transformers import MPNetConfig, MPNetModel

    return MPNetModel(MPNetConfig(**ENCODER, max_position_embeddings=302, pad_token_id=1))


def _distilbert() -> Any:
    from transformers import DistilBertConfig, DistilBertModel

    sizes = {"dim": 48, "n_layers": 2, "n_heads": 4, "hidden_dim": 72, "vocab_size": 99}
    return DistilBertModel(DistilBertConfig(**sizes, max_position_embeddings=300))


def _llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**LLAMA, tie_word_embeddings=True))


def _llama_scaled() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    rope = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    return LlamaForCausalLM(LlamaConfig(**LLAMA, rope_parameters=rope, attention_bias=True, mlp_bias=True))


def _qwen2() -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**LLAMA))


def _qwen3() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**LLAMA, head_dim=20))


def _gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_embd=48, n_layer=2, n_head=4, vocab_size=99, n_positions=300))


def _opt() -> Any:
    from transformers import OPTConfig, OPTForCausalLM

    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 72, "vocab_size": 99}
    return OPTForCausalLM(OPTConfig(**sizes, max_position_embeddings=300, word_embed_proj_dim=48))


ENCODERS: dict[str, Callable[[], Any]] = {
    "bert": _bert,
    "bert_masked_lm": _bert_masked_lm,
    "roberta": _roberta,
    "xlm_roberta": _xlm_roberta,
    "mpnet": _mpnet,
    "distilbert": _distilbert,
}
DECODERS: dict[str, Callable[[], Any]] = {
    "llama": _llama,
    "llama_scaled": _llama_scaled,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gpt2": _gpt2,
    "opt": _opt,
}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_model(make: Callable[[], Any]) -> Any:
    """A model with every parameter drawn, biases and norms too, so that none of them can be forgotten unseen."""
    torch.manual_seed(7)
    model = make().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            norm = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(0.15 * torch.randn_like(parameter) + (1.0 if norm else 0.0))
    return model


# Of the last instruction set that has one: not every set has kernels of its own for every format.
NEWEST_DENSE = [
    found["name"]
    for found in _native.kernels()
    if found["name"].startswith("spmm_dense_f32_") and found["why_not"] is None and found["x_dtype"] == "float32"
][-1]


def program_of(lowered: Lowered, *, graph: Graph | None = None, kernel: str = "") -> Program:
    """A lowered model made runnable with one dense kernel for all sizes."""
    name = kernel or NEWEST_DENSE
    linears = {}
    for key, weight in lowered.linears.items():
        packed = _native.pack(name, *weight.shape, "dense", {"data": np.ascontiguousarray(weight)}, "float32", {})
        linears[key] = ((None, packed),)
    return Program(graph or lowered.graph, lowered.tensors, linears=linears)


def random_ids(lengths: Sequence[int], *, vocabulary: int = 99, seed: int = 0) -> list[Array]:
    """Token ids of some sequences; lower ones than 3 are padding and other special tokens."""
    generator = np.random.default_rng(seed)
    return [generator.integers(3, vocabulary, size=length).astype(np.int32) for length in lengths]


def run(program: Program, ids: Sequence[Array], output: str, **arguments: Any) -> Array:
    """One output, from buffers that held NaN before."""
    types, cache = arguments.get("types"), arguments.get("cache")
    return program._run(ids, types, cache, [output], None, fill_nan=True)[output]


def torch_output(model: Any, ids: Sequence[Array], output: str, types: Sequence[Array] | None = None) -> Array:
    """What torch makes of the padded batch, padding left out again."""
    pad = model.config.pad_token_id or 0
    longest = max(item.size for item in ids)
    batch = torch.full((len(ids), longest), pad, dtype=torch.long)
    mask = torch.zeros_like(batch)
    kinds = torch.zeros_like(batch)
    for row, item in enumerate(ids):
        batch[row, : item.size] = torch.from_numpy(item)
        mask[row, : item.size] = 1
        if types is not None:
            kinds[row, : item.size] = torch.from_numpy(types[row])
    arguments = {"token_type_ids": kinds} if types is not None else {}
    runs = model if output == "logits" else getattr(model, model.base_model_prefix, model)
    with torch.no_grad():
        found = runs(input_ids=batch, attention_mask=mask, **arguments)
    padded = found.logits if output == "logits" else found.last_hidden_state
    return np.concatenate([padded[row, : item.size].double().numpy() for row, item in enumerate(ids)])


def assert_as_exact_as_torch(
    ours: Array, model: Any, ids: Sequence[Array], output: str, types: Any = None, *, factor: float = 4
) -> None:
    """See the top of this file."""
    exact = torch_output(copy.deepcopy(model).double(), ids, output, types)
    yardstick = np.abs(torch_output(model, ids, output, types) - exact).max()
    assert ours.shape == exact.shape
    assert 0 < yardstick < 1e-4 * np.abs(exact).max()
    assert np.abs(ours - exact).max() <= factor * yardstick


@pytest.mark.parametrize("family", [*ENCODERS, *DECODERS])
def test_ragged_batch_is_as_exact_as_torch(family: str) -> None:
    model = random_model({**ENCODERS, **DECODERS}[family])
    lowered = lower(model)
    program, ids = program_of(lowered), random_ids(LENGTHS)
    assert can_lower(model)
    for output in ("hidden", "logits"):
        if output in lowered.graph.outputs:
            assert_as_exact_as_torch(run(program, ids, output), model, ids, output)
    assert lowered.kind == ("encoder" if family in ENCODERS else "decoder")


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_scalar_kernels_and_a_single_token_too(family: str) -> None:
    model = random_model({**ENCODERS, **DECODERS}[family])
    program = program_of(lower(model), kernel="spmm_dense_f32_scalar")
    for ids in (random_ids((1,)), random_ids((9,)), random_ids((1,) * 65)):
        assert_as_exact_as_torch(run(program, ids, "hidden"), model, ids, "hidden")


@pytest.mark.parametrize("family", DECODERS)
def test_cache_gives_what_the_whole_sequence_gives(family: str) -> None:
    model = random_model(DECODERS[family])
    program, (ids,) = program_of(lower(model)), random_ids((200,))
    cache, found = program.new_cache(200), []
    for first, last in ((0, 70), *((at, at + 1) for at in range(70, 135)), (135, 137), (137, 200)):
        found.append(run(program, [ids[first:last]], "logits", cache=cache))
    assert cache.length == 200
    assert_as_exact_as_torch(np.concatenate(found), model, [ids], "logits")


def test_caches_of_a_batch_are_apart_and_can_be_cut() -> None:
    model = random_model(_llama)
    program, ids = program_of(lower(model)), random_ids((90, 3, 129))
    caches = [program.new_cache(140) for _ in ids]
    run(program, [item[:-2] for item in ids], "hidden", cache=caches)
    run(program, [item[-2:-1] for item in ids], "hidden", cache=caches)
    got = run(program, [item[-1:] for item in ids], "logits", cache=caches)
    exact = [torch_output(copy.deepcopy(model).double(), [item], "logits")[-1] for item in ids]
    yardstick = max(
        np.abs(torch_output(model, [item], "logits")[-1] - want).max() for item, want in zip(ids, exact, strict=True)
    )
    assert np.abs(got - np.stack(exact)).max() <= 4 * yardstick
    caches[2].truncate(64)
    run(program, [ids[2][64:128], ids[0][:5]], "hidden", cache=[caches[2], program.new_cache(8)])
    again = run(program, [ids[2][128:]], "logits", cache=caches[2])
    assert np.abs(again[0] - exact[2]).max() <= 4 * yardstick


def test_last_logits_are_those_of_each_last_token() -> None:
    model = random_model(_qwen2)
    program, ids = program_of(lower(model)), random_ids(LENGTHS)
    every, last = run(program, ids, "logits"), run(program, ids, "last_logits")
    assert last.shape == (len(ids), 99)
    # The head runs on other lanes, so its sums may differ in order: each is within (K + 1) u of the same dot product.
    bound = 2 * 49 * 2.0**-24 * np.abs(every).max() * 48
    assert np.abs(last - every[np.cumsum(LENGTHS) - 1]).max() <= bound


def test_token_types_reach_the_table() -> None:
    model = random_model(_bert)
    program, ids = program_of(lower(model)), random_ids((6, 70))
    types = [np.arange(item.size, dtype=np.int32) % 2 for item in ids]
    assert_as_exact_as_torch(run(program, ids, "hidden", types=types), model, ids, "hidden", types)


@pytest.mark.parametrize("mode", ["mean", "max", "first", "last"])
@pytest.mark.parametrize("normalize", [False, True])
def test_pooling_within_the_graph(mode: str, normalize: bool) -> None:
    model = random_model(_bert)
    lowered = lower(model)
    program = program_of(lowered, graph=lowered.graph.with_pooling(mode, normalize=normalize))
    ids = random_ids(LENGTHS)
    tokens = np.split(run(program, ids, "hidden").astype(np.float64), np.cumsum(LENGTHS)[:-1])
    pick: dict[str, Callable[[Array], Array]] = {
        "mean": lambda x: x.mean(axis=0),
        "max": lambda x: x.max(axis=0),
        "first": lambda x: x[0],
        "last": lambda x: x[-1],
    }
    want = np.stack([pick[mode](item) for item in tokens])
    if normalize:
        want /= np.linalg.norm(want, axis=1, keepdims=True)
    # Sums of up to 200 (tokens) and 48 (features) terms in float32.
    bound = 256 * 2.0**-24 * max(np.abs(item).max() for item in tokens)
    assert np.abs(run(program, ids, "embedding") - want).max() <= bound


def test_tied_head_is_a_linear_layer_and_the_table() -> None:
    lowered = lower(random_model(_llama))
    assert np.shares_memory(lowered.linears["lm_head"], lowered.tensors["model.embed_tokens.weight"])


def test_weights_are_not_copied() -> None:
    model = random_model(_bert)
    weight = model.encoder.layer[0].intermediate.dense.weight
    assert np.shares_memory(lower(model).linears["encoder.layer.0.intermediate.dense"], weight.detach().numpy())


def test_too_long_and_foreign_caches_are_refused_before_anything_runs() -> None:
    program, other = program_of(lower(random_model(_llama))), program_of(lower(random_model(_qwen3)))
    with pytest.raises(InvalidArgument, match="301 tokens, but the model takes at most 300"):
        program.run(random_ids((301,)))
    cache = program.new_cache(10)
    with pytest.raises(InvalidArgument, match="holds 10 tokens, but 11 are needed"):
        program.run(random_ids((11,)), cache=cache)
    assert cache.length == 0
    with pytest.raises(InvalidArgument, match="made for another program"):
        other.run(random_ids((3,)), cache=cache)
    with pytest.raises(InvalidArgument, match="the same for two sequences"):
        program.run(random_ids((3, 3)), cache=[cache, cache])
    with pytest.raises(InvalidArgument, match="something else than new_cache"):
        program.run(random_ids((3,)), cache="cache")
    with pytest.raises(InvalidArgument, match="not one for each sequence"):
        program.run(random_ids((3, 3)), cache=cache)
    with pytest.raises(InvalidArgument, match="keeps no"):
        program_of(lower(random_model(_bert))).new_cache(5)


def _refused() -> dict[str, tuple[str, Callable[[], Any]]]:
    tf = transformers
    sizes = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 99}
    opt = {**sizes, "ffn_dim": 72, "max_position_embeddings": 32}
    window = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    return {
        "opt-350m norm": ("OPT-350m", lambda: tf.OPTForCausalLM(tf.OPTConfig(**opt, do_layer_norm_before=False))),
        "opt-350m width": ("OPT-350m", lambda: tf.OPTForCausalLM(tf.OPTConfig(**opt, word_embed_proj_dim=24))),
        "activation": (
            "activation 'quick_gelu'",
            lambda: tf.BertModel(tf.BertConfig(**sizes, hidden_act="quick_gelu")),
        ),
        "bert decoder": ("is_decoder", lambda: tf.BertModel(tf.BertConfig(**sizes, is_decoder=True))),
        "window": ("sliding-window", lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**LLAMA, **window))),
        "rope": ("rope type 'dynamic'", lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**LLAMA, rope_parameters=rope))),
        "t5": ("'t5'", lambda: tf.T5EncoderModel(tf.T5Config(d_model=48, num_layers=1, num_heads=4, d_ff=72))),
        "plain torch": ("model_type is None", lambda: torch.nn.Linear(3, 4)),
    }


@pytest.mark.parametrize("case", _refused())
def test_what_is_not_supported_is_named(case: str) -> None:
    says, make = _refused()[case]
    with pytest.raises(UnsupportedModel, match=says):
        lower(make())


def _real(name: str, kind: str) -> Any:
    from zeroskip.models import packages

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        path = packages.find(name)
    except MissingDependency as error:
        pytest.skip(str(error))
    assert path is not None
    if path.suffix == ".gguf":
        pytest.importorskip("gguf")
        arguments = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    else:
        arguments = {"pretrained_model_name_or_path": path}
    return getattr(transformers, kind).from_pretrained(**arguments, dtype=torch.float32).eval()


def test_minilm() -> None:
    model = _real("minilm", "AutoModel")
    ids = random_ids((120, 17, 66), vocabulary=model.config.vocab_size)
    assert_as_exact_as_torch(run(program_of(lower(model)), ids, "hidden"), model, ids, "hidden")


@pytest.mark.slow
def test_mpnet() -> None:
    model = _real("mpnet", "AutoModel")
    ids = random_ids((150, 17), vocabulary=model.config.vocab_size)
    assert_as_exact_as_torch(run(program_of(lower(model)), ids, "hidden"), model, ids, "hidden")


@pytest.mark.slow
def test_smollm2() -> None:
    model = _real("smollm2", "AutoModelForCausalLM")
    program, (ids,) = program_of(lower(model)), random_ids((80,), vocabulary=model.config.vocab_size)
    cache = program.new_cache(80)
    parts = [ids[:70], *(ids[at : at + 1] for at in range(70, 80))]
    logits = np.concatenate([run(program, [part], "logits", cache=cache) for part in parts])
    # Dense kernels keep one sum over K = 1536 where torch keeps 16 or more: rounding errors, which grow with the square
    # root of a sum's length, are 4 times as large, and this model has features of 900 that magnify them.
    assert_as_exact_as_torch(logits, model, [ids], "logits", factor=16)
