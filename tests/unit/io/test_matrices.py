"""Quantised matrices in a saved model: every format there and back, and files that lie about codes and scales."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zeroskip import DamagedFile
from zeroskip.formats import BSR, NM, SELL, VNM, pack_positions, registry, unpack_positions
from zeroskip.io import DenseMatrix, Manifest, TensorFile, open_saved, save, write_tensors
from zeroskip.io.matrices import StoredMatrix, bfloat16_names, describe, read_matrix, tensors_of
from zeroskip.quantize import quantize
from zeroskip.testing import random_dense, random_nm, random_vnm

KINDS = ("dense", *sorted(registry.names()))
# 40 columns: a group of 32 and one of 8. Odd counts of codes in bitmask and csr.
SHAPE = (6, 40)
# What a wrong shape breaks first depends on the format.
LIES = "codes take|has shape|makes it|must divide|positions in groups of|sizes above"


def floats(kind: str) -> Any:
    if kind == "dense":
        return DenseMatrix(random_dense((5, 39), seed=1), "float32")
    if kind == "nm":
        return NM.from_dense(random_nm(SHAPE, 3, 8, seed=2), n=3, m=8)
    if kind == "vnm":
        return VNM.from_dense(random_vnm(SHAPE, 2, 2, 8, seed=2), v=2, n=2, m=8)
    dense = random_dense(SHAPE, 0.6, seed=3)
    if kind == "bsr":
        return BSR.from_dense(dense, block=(2, 1))
    if kind == "sell":
        return SELL.from_dense(dense, c=4, sigma=4)
    a: Any = registry.get(kind).from_dense(dense)
    if a.nnz % 2:
        return a
    rows, cols = np.nonzero(dense)
    dense[rows[0], cols[0]] = 0
    return type(a).from_dense(dense)


def sample(kind: str, dtype: str = "int4", group: int = 32, symmetric: bool = False) -> Any:
    return quantize(floats(kind), dtype, group=group, symmetric=symmetric)


def written(path: Path, tensors: dict[str, np.ndarray]) -> TensorFile:
    write_tensors(path / "m.safetensors", tensors)
    return TensorFile(path / "m.safetensors")


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [0, 32])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(tmp_path: Path, kind: str, dtype: str, group: int, symmetric: bool) -> None:
    a = sample(kind, dtype, group, symmetric)
    tensors = tensors_of("w", a)
    names = {"w::data", "w::scales"} | (set() if symmetric else {"w::zeros"})
    assert names <= set(tensors)
    spared = a.indices.nbytes - tensors["w::positions"].nbytes if kind in ("nm", "vnm") else 0
    assert sum(array.nbytes for array in tensors.values()) == a.nbytes - spared
    assert not bfloat16_names("w", a)
    file = written(tmp_path, tensors)
    assert file.code("w::data") == ("I8" if dtype == "int8" else "U8")
    assert file.code("w::scales") == "F16"
    stored = describe(a, {})
    assert stored.as_json()["group"] == group
    assert stored.as_json()["symmetric"] is symmetric
    b = read_matrix(file, "w", stored)
    assert type(b) is type(a)
    assert (b.dtype, b.params) == (dtype, a.params)
    np.testing.assert_array_equal(b.data, a.data)
    np.testing.assert_array_equal(b.to_dense(), a.to_dense())
    assert b.scales is not None
    assert b.scales.group == group
    assert b.scales.symmetric is symmetric


def test_floating_matrices_have_no_group(tmp_path: Path) -> None:
    a = floats("csr")
    assert set(describe(a, {}).as_json()) == {"shape", "format", "dtype", "params"}
    file = written(tmp_path, tensors_of("w", a))
    with pytest.raises(DamagedFile, match="other values no group"):
        read_matrix(file, "w", StoredMatrix(a.shape, "csr", "float32", {}, group=32))


def changed(array: np.ndarray, at: Any, to: Any) -> np.ndarray:
    copy = array.copy()
    copy[at] = to
    return copy


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("message", "key", "change"),
    [
        (r"values\[1, 0\] is 0\.0, a scale is finite and above 0", "scales", lambda s: changed(s, (1, 0), 0)),
        (r"is nan, a scale", "scales", lambda s: changed(s, (1, 0), np.nan)),
        (r"is inf, a scale", "scales", lambda s: changed(s, (1, 0), np.inf)),
        (r"is -0\.5, a scale", "scales", lambda s: changed(s, (1, 0), -0.5)),
        (r"holds? .*scales|has F32 scales", "scales", lambda s: s.astype(np.float32)),
        (r"zeros has shape", "zeros", lambda z: z[:, :1].copy()),
        (r"has U8 zeros", "zeros", lambda z: z.view(np.uint8)),
        (r"zeros\[2, 1\] is 8, int4 codes lie in", "zeros", lambda z: changed(z, (2, 1), 8)),
        (r"int4 codes take uint8", "data", lambda d: d[:-1].copy()),
        (r"int4 codes take uint8", "data", lambda d: np.append(d, np.uint8(0))),
        (r"holds I8 values, zeroskip.json says int4", "data", lambda d: d.view(np.int8)),
        (r"int4 codes take uint8", "data", lambda d: d[None].copy()),
    ],
)
def test_damage_is_refused(tmp_path: Path, kind: str, message: str, key: str, change: Any) -> None:
    a = sample(kind)
    tensors = tensors_of("w", a)
    tensors[f"w::{key}"] = change(tensors[f"w::{key}"])
    file = written(tmp_path, tensors)
    with pytest.raises(DamagedFile, match=message) as caught:
        read_matrix(file, "w", describe(a, {}))
    assert "\n" not in str(caught.value)
    assert "'w'" in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_too_few_or_too_many_scales_and_missing_arrays(tmp_path: Path, kind: str) -> None:
    a = sample(kind)
    tensors, stored = tensors_of("w", a), describe(a, {})
    cut = {key: array[:-1].copy() if "scales" in key or "zeros" in key else array for key, array in tensors.items()}
    with pytest.raises(DamagedFile, match="makes it"):
        read_matrix(written(tmp_path, cut), "w", stored)
    for key in tensors:
        rest = {name: array for name, array in tensors.items() if name != key}
        with pytest.raises(DamagedFile, match=f"has no tensor '{key}'"):
            read_matrix(written(tmp_path, rest), "w", stored)


@pytest.mark.parametrize("kind", KINDS)
def test_int8_codes_out_of_range_and_odd_nibbles(tmp_path: Path, kind: str) -> None:
    a = sample(kind, "int8")
    tensors = tensors_of("w", a)
    tensors["w::data"] = changed(a.data, (0,) * a.data.ndim, -128)  # no padding in any format
    with pytest.raises(DamagedFile, match=r"is -128, int8 codes lie in \[-127, 127\]"):
        read_matrix(written(tmp_path, tensors), "w", describe(a, {}))
    b = sample(kind)
    if b.data.size % 2:
        tensors = tensors_of("w", b)
        tensors["w::data"][-1] |= 0xF0 if tensors["w::data"][-1] >> 4 == 0 else 0
        with pytest.raises(DamagedFile, match="it holds no code and must be 0"):
            read_matrix(written(tmp_path, tensors), "w", describe(b, {}))


def test_odd_counts_are_among_the_samples() -> None:
    odd = [kind for kind in KINDS if sample(kind).data.size % 2]
    assert {"dense", "bitmask", "csr", "coo", "csc"} <= set(odd)


POSITIONS = ("nm", "vnm")


@pytest.mark.parametrize("kind", POSITIONS)
@pytest.mark.parametrize("dtype", ["float32", "int8", "int4"])
def test_a_file_with_a_byte_a_position_still_loads(tmp_path: Path, kind: str, dtype: str) -> None:
    """As files were before positions were packed: `indices`, and no word of bits."""
    a = floats(kind) if dtype == "float32" else sample(kind, dtype)
    tensors = tensors_of("w", a)
    del tensors["w::positions"]
    told = {name: value for name, value in vars(describe(a, {})).items() if name != "position_bits"}
    b = read_matrix(written(tmp_path, tensors | {"w::indices": a.indices}), "w", StoredMatrix(**told))
    np.testing.assert_array_equal(b.to_dense(), a.to_dense())


@pytest.mark.parametrize(
    ("n", "m", "share"), [(2, 4, 2 / 8), (4, 8, 3 / 8), (8, 16, 4 / 8), (3, 40, 6 / 8), (9, 256, 1)]
)
def test_positions_take_the_bits_that_m_needs(tmp_path: Path, n: int, m: int, share: float) -> None:
    a = NM.from_dense(random_nm((16, 2 * m), n, m, seed=4), n=n, m=m)
    tensors = tensors_of("w", a)
    assert tensors["w::positions"].nbytes == a.indices.size * share
    assert describe(a, {}).as_json()["position_bits"] == 8 * share
    np.testing.assert_array_equal(read_matrix(written(tmp_path, tensors), "w", describe(a, {})).indices, a.indices)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 100, 128, 129, 256])
def test_positions_there_and_back(m: int) -> None:
    for count in (0, 1, 2, 7, 8, 9, 1001):
        positions = np.random.default_rng(count).integers(0, m, count).astype(np.uint8)
        packed = pack_positions(positions, m)
        np.testing.assert_array_equal(unpack_positions(packed, m, (count,)), positions)
        bits = max(1, (m - 1).bit_length())
        assert bits * count / 8 <= packed.nbytes < bits * count / 8 + 3


def test_the_documented_bytes_of_positions() -> None:
    """docs/formats.md: 5 bits are a field of 4 and one of 1."""
    assert pack_positions(np.array([17, 2, 31], dtype=np.uint8), 32).tolist() == [0x21, 0x0F, 0b101]


@pytest.mark.parametrize("kind", POSITIONS)
@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("positions in groups of", lambda p: p[:-1].copy()),
        ("positions in groups of", lambda p: np.append(p, np.uint8(0))),
        ("positions is uint16", lambda p: p.astype(np.uint16)),
        ("increas", lambda p: np.zeros_like(p)),
    ],
)
def test_damaged_positions_are_refused(tmp_path: Path, kind: str, message: str, change: Any) -> None:
    a = sample(kind)
    tensors = tensors_of("w", a)
    tensors["w::positions"] = change(tensors["w::positions"])
    with pytest.raises(DamagedFile, match=message):
        read_matrix(written(tmp_path, tensors), "w", describe(a, {}))


def test_positions_outside_their_group_and_unused_bits_are_refused(tmp_path: Path) -> None:
    a = NM.from_dense(random_nm((3, 9), 1, 3, seed=5), n=1, m=3)  # 9 positions of 2 bits, 6 bits are left
    tensors, stored = tensors_of("w", a), describe(a, {})
    for at, value, message in ((0, 3, "out of range for groups of 3"), (2, 4, "bits set beyond the last position")):
        broken = changed(tensors["w::positions"], at, tensors["w::positions"][at] | value)
        with pytest.raises(DamagedFile, match=message):
            read_matrix(written(tmp_path, tensors | {"w::positions": broken}), "w", stored)


@pytest.mark.parametrize(
    ("kind", "bits", "message"), [("nm", 4, "make it 3"), ("vnm", 3, "make it 2"), ("csr", 4, "which nm and vnm have")]
)
def test_bits_that_lie_are_refused(tmp_path: Path, kind: str, bits: int, message: str) -> None:
    a = sample(kind)
    told = vars(describe(a, {})) | {"position_bits": bits}
    tensors = tensors_of("w", a)
    tensors.setdefault("w::positions", np.zeros(1, dtype=np.uint8))
    with pytest.raises(DamagedFile, match=message):
        read_matrix(written(tmp_path, tensors), "w", StoredMatrix(**told))


@pytest.mark.parametrize("shape", [(2**31 - 1, 4), (4, 2**31 - 1)])
def test_rows_that_no_array_bounds_are_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    """A few bytes of COO must not make gigabytes of offsets."""
    a = floats("coo")
    told = vars(describe(a, {})) | {"shape": shape}
    with pytest.raises(DamagedFile, match="sizes above 1048576 need as many"):
        read_matrix(written(tmp_path, tensors_of("w", a)), "w", StoredMatrix(**told))


@pytest.mark.parametrize(
    ("message", "lie"),
    [
        ("has zeros but", {"symmetric": True}),
        ("makes it", {"group": 64}),
        ("makes it", {"group": 0}),
        ("have a group and tensors of their own", {"group": None}),
        ("have a group and tensors of their own", {"tied": "w::data"}),
        ("holds U8 values, zeroskip.json says int8", {"dtype": "int8"}),
        ("holds U8 values|has no tensor 'w'|other values no group", {"dtype": "float32"}),
        (LIES, {"shape": (6, 4000)}),
        (LIES, {"shape": (2**31 - 1, 2**31 - 1)}),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_description_that_lies_is_refused(tmp_path: Path, kind: str, message: str, lie: dict[str, Any]) -> None:
    a = sample(kind)
    file = written(tmp_path, tensors_of("w", a))
    told = vars(describe(a, {})) | lie
    with pytest.raises(DamagedFile, match=message):
        read_matrix(file, "w", StoredMatrix(**told))


def saved(folder: Path) -> Path:
    matrices = {kind: sample(kind) for kind in KINDS} | {"plain": floats("csr")}
    manifest = Manifest("encoder", "bert", "test", "int4", {}, {}, [], {}, {})
    return save(folder / "model", manifest, matrices=matrices, tensors={}, files={})


def test_a_saved_model_holds_them(tmp_path: Path) -> None:
    found = open_saved(saved(tmp_path), verify=True)
    assert found.manifest.values == "int4"
    for kind in KINDS:
        np.testing.assert_array_equal(found.matrix(kind).to_dense(), sample(kind).to_dense())
    np.testing.assert_array_equal(found.matrix("plain").to_dense(), floats("csr").to_dense())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("position_bits", 9, "'position_bits' is 9, it must be a whole number from 1 to 8"),
        ("position_bits", "4", "'position_bits' is '4'"),
        ("group", 31, "group"),
        ("group", 48, "'group' is 48, it must be one of 0, 32, 64, 128"),
        ("group", 256, "'group' is 256"),
        ("group", None, "'group' is None"),
        ("group", True, "'group' is True"),
        ("group", "32", "'group' is '32'"),
        ("symmetric", None, "'symmetric' is None, it must be true or false"),
        ("symmetric", 0, "'symmetric' is 0"),
        ("dtype", "int2", "'dtype' is 'int2'"),
    ],
)
def test_the_description_is_checked_on_opening(tmp_path: Path, key: str, value: Any, message: str) -> None:
    folder = saved(tmp_path)
    path = folder / "zeroskip.json"
    told = json.loads(path.read_text())
    told["linears"]["csr"][key] = value
    path.write_text(json.dumps(told))
    with pytest.raises(DamagedFile, match=message):
        open_saved(folder)


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_byte_of_the_file_may_be_another(tmp_path: Path, kind: str, dtype: str) -> None:
    """Every read matrix is whole and finite, or it is a DamagedFile: header, codes, scales and patterns alike."""
    a = sample(kind, dtype)
    written(tmp_path, tensors_of("w", a))
    content, stored = (tmp_path / "m.safetensors").read_bytes(), describe(a, {})
    rng, refused = np.random.default_rng(0), 0
    other = tmp_path / "other.safetensors"
    for _ in range(150):
        damaged = bytearray(content)
        for at in rng.integers(0, len(content), rng.integers(1, 4)):
            damaged[at] = rng.integers(0, 256)
        other.write_bytes(damaged)
        try:
            found = read_matrix(TensorFile(other), "w", stored)
        except DamagedFile:
            refused += 1
            continue
        assert found.to_dense().shape == a.shape
        assert np.isfinite(found.to_dense()).all()
    assert 10 < refused < 150
