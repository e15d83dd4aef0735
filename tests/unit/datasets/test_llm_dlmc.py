"""LLM-DLMC: shapes that add up to the models, and drawn patterns that spread as they were fitted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip import DamagedFile, InvalidArgument
from zeroskip.datasets import find, llm_dlmc, registry, with_drawn_values
from zeroskip.datasets._profile import Profile, draw, kolmogorov_smirnov
from zeroskip.datasets._shapes import ROLES, model, models, parse
from zeroskip.formats import CSR


def drawn(shape: tuple[int, int], entries: int, profile: Profile, seed: int = 0) -> CSR:
    found = draw(shape, entries, profile, np.random.default_rng(seed))
    return with_drawn_values(found, "drawn", seed)  # CSR checks that columns increase


@pytest.mark.parametrize("one", models(), ids=lambda one: one.name)
def test_layers_and_the_rest_add_up_to_the_model(one: object) -> None:
    found = model(one.name)  # type: ignore[attr-defined]
    linear = sum(layer.rows * layer.columns * layer.count for layer in found.layers)
    assert linear + found.other_parameters == found.parameters
    assert found.source.startswith("https://")
    assert {layer.role for layer in found.layers} <= set(ROLES)


def test_the_models_that_the_survey_asks_for_are_there() -> None:
    names = {one.name for one in models()}
    wanted = {"llama3-8b", "llama3-70b", "llama3-405b", "mistral-7b", "qwen3-8b", "deepseek-v3", "gemma3-27b"}
    assert wanted | {"mamba2-2.7b", "vit-l-16", "dit-xl-2", "smollm2-135m", "minilm-l6", "mpnet-base"} <= names
    deepseek = {layer.name: layer for layer in model("deepseek-v3").layers}
    assert (deepseek["kv_a_proj"].rows, deepseek["kv_a_proj"].columns) == (512 + 64, 7168)
    assert (deepseek["q_b_proj"].rows, deepseek["q_b_proj"].columns) == (128 * (128 + 64), 1536)
    assert deepseek["expert_up_proj"].count == 58 * 256
    with pytest.raises(InvalidArgument, match=r"model 'llama9' is not known; choose one of: .*llama3-8b"):
        model("llama9")


HEAD = 'title = "x"\nsource = "y"\nparameters = 1\nother_parameters = 0\n'
LAYER = '[[layer]]\nname = "a"\nrole = "up"\nrows = 2\ncolumns = 3\ncount = 1\n'


@pytest.mark.parametrize(
    "text",
    [
        "title",
        HEAD,
        HEAD + LAYER.replace("rows = 2\n", ""),
        HEAD + LAYER.replace("rows = 2", "rows = 0"),
        HEAD + LAYER.replace('"up"', '"side"'),
        HEAD + LAYER + LAYER,
        HEAD + "colour = 1\n" + LAYER,
    ],
)
def test_a_file_of_shapes_that_is_wrong(text: str) -> None:
    assert parse("x", HEAD + LAYER).layers[0].columns == 3
    with pytest.raises(DamagedFile, match=r"x\.toml does not describe a model"):
        parse("x", text)


@given(
    m=st.integers(1, 40),
    k=st.integers(1, 40),
    share=st.floats(0, 1),
    rho=st.sampled_from([0.0, 0.05, 0.5, 0.99]),
    exact=st.booleans(),
    seed=st.integers(0, 9),
)
def test_a_drawn_pattern_has_exactly_its_entries(
    m: int, k: int, share: float, rho: float, exact: bool, seed: int
) -> None:
    entries = round(share * m * k)
    a = drawn((m, k), entries, Profile(0.0 if exact else rho, rho, exact), seed)
    assert (a.shape, a.nnz) == ((m, k), entries)
    if exact:
        assert np.ptp(np.diff(a.indptr)) <= 1


def test_a_pattern_that_cannot_be() -> None:
    with pytest.raises(InvalidArgument, match="entries is 7, a matrix of 2 x 3 has 0 to 6"):
        draw((2, 3), 7, Profile(0, 0, False), np.random.default_rng(0))


@pytest.mark.parametrize("row_rho", [0.0, 0.01, 0.05])
@pytest.mark.parametrize("col_rho", [0.0, 0.02])
@pytest.mark.parametrize("density", [0.05, 0.5])
def test_what_is_drawn_is_fitted_again(row_rho: float, col_rho: float, density: float) -> None:
    shape = (1500, 1200)
    found = Profile.of(drawn(shape, round(density * 1500 * 1200), Profile(row_rho, col_rho, False)))
    # The estimate of a variance from n numbers is off by sqrt(2 / n) = 4 %; five times that, and as much of chance.
    assert found.row_rho == pytest.approx(row_rho, rel=0.25, abs=2e-4)
    assert found.col_rho == pytest.approx(col_rho, rel=0.25, abs=2e-4)
    assert not found.exact_rows


def test_rows_of_one_count_are_seen_as_such() -> None:
    found = Profile.of(drawn((300, 200), 300 * 20, Profile(0.0, 0.02, True)))
    assert found.exact_rows
    assert found.row_rho == 0
    assert Profile.of(CSR.from_dense(np.ones((4, 5), np.float32))) == Profile(0.0, 0.0, False)


def test_kolmogorov_smirnov_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for size in (1, 5, 100):
        a, b = rng.poisson(20, size), rng.poisson(22, 2 * size)
        assert kolmogorov_smirnov(a, b) == pytest.approx(stats.ks_2samp(a, b).statistic)
    assert kolmogorov_smirnov(np.array([1, 2]), np.array([1, 2])) == 0
    assert kolmogorov_smirnov(np.array([1, 2]), np.array([3, 4])) == 1


def test_every_method_has_profiles_for_every_role() -> None:
    assert {"magnitude", "wanda", "sparsegpt", "magnitude_pruning"} <= set(llm_dlmc.methods())
    for method in llm_dlmc.methods():
        for role in llm_dlmc.PRUNED_ROLES:
            found = llm_dlmc.profile(method, role, 0.9)
            assert 0 <= found.row_rho < 1
            assert 0 <= found.col_rho < 1
    assert llm_dlmc.profile("wanda", "up", 0.9).exact_rows
    assert not llm_dlmc.profile("magnitude", "up", 0.9).exact_rows


def test_the_nearest_level_and_the_mean_of_models() -> None:
    fitted = [
        {"model": m, "method": "x", "role": "up", "level": s, "row_rho": r, "col_rho": 2 * r, "exact_rows": False}
        for m, s, r in (("a", 0.5, 0.1), ("a", 0.9, 0.2), ("b", 0.9, 0.4))
    ]
    assert llm_dlmc.profile("x", "up", 0.95, among=fitted).row_rho == pytest.approx(0.3)
    assert llm_dlmc.profile("x", "up", 0.95, among=fitted, without="b").row_rho == pytest.approx(0.2)
    assert llm_dlmc.profile("x", "up", 0.6, among=fitted) == Profile(0.1, 0.2, False)


def test_the_entries() -> None:
    entries = registry.get("llm-dlmc").entries()
    assert len({one.name for one in entries}) == len(entries) > 2000
    assert not any(one.name.endswith(("/lm_head", "/router")) for one in entries)
    (one,) = find("llm-dlmc/smollm2-135m/magnitude/0.9/k_proj")
    assert (one.model, one.method, one.level, one.shape) == ("smollm2-135m", "magnitude", 0.9, (192, 576))
    a = one.matrix()
    assert (a.shape, a.nnz) == ((192, 576), round(0.1 * 192 * 576)) == (one.shape, one.nnz)
    np.testing.assert_array_equal(a.indices, one.matrix().indices)
    assert (a.indices != one.matrix(1).indices).any()
    fitted = llm_dlmc.profile("magnitude", "qkv", 0.9)
    big = find("llm-dlmc/qwen3-0.6b/magnitude/0.9/q_proj")[0].matrix()
    assert Profile.of(big).row_rho == pytest.approx(fitted.row_rho, rel=0.3)
