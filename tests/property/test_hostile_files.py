"""Files from anywhere, altered by Hypothesis: their readers give a whole result or an error of zeroskip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zeroskip import DamagedFile, ZeroskipError
from zeroskip.bench.stored import StoredProblem
from zeroskip.datasets.io.smtx import parse_smtx
from zeroskip.formats import registry
from zeroskip.io import TensorFile, write_tensors
from zeroskip.io.matrices import StoredMatrix, bfloat16_names, describe, read_matrix, tensors_of
from zeroskip.ops import _cache
from zeroskip.quantize import quantize
from zeroskip.testing import random_vnm

FORMATS = sorted(registry.names())
PARAMS: dict[str, dict[str, Any]] = {"bsr": {"block": (2, 2)}, "nm": {"n": 2, "m": 8}, "vnm": {"v": 2, "n": 2, "m": 8}}
INTEGERS = st.one_of(st.integers(-2, 40), st.sampled_from([2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**64, -(2**63)]))
JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), INTEGERS, st.floats(), st.text(max_size=4), st.sampled_from(["F32", "U8", "BF16"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)
# One file for all examples: each writes it anew.
reuses_the_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def one_line(error: Exception) -> None:
    assert str(error)
    assert "\n" not in str(error)


def sample(name: str, dtype: str) -> Any:
    a: Any = registry.get(name).from_dense(random_vnm((6, 16), 2, 2, 8, seed=1), **PARAMS.get(name, {}))
    return quantize(a, dtype, group=32) if dtype in ("int8", "int4") else a.astype(dtype)


@st.composite
def altered(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes of a file with a few of them overwritten, cut out or put in."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at, count = draw(st.integers(0, len(found))), draw(st.integers(0, 8))
        found[at : at + count] = draw(st.binary(max_size=8))
    return bytes(found)


def header_of(content: bytes) -> tuple[Any, bytes]:
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def put_json(draw: Any, document: Any) -> None:
    """Put another value, or none, somewhere into a JSON document."""
    while True:
        key = draw(st.sampled_from(sorted(document) if isinstance(document, dict) else range(len(document))))
        if not (isinstance(document[key], dict | list) and document[key]) or draw(st.integers(0, 3)) == 0:
            break
        document = document[key]
    if draw(st.booleans()):
        document[key] = draw(JSON)
    else:
        del document[key]


def read_all(path: Path) -> None:
    """Open a file and look at all of it."""
    try:
        file = TensorFile(path)
    except DamagedFile as error:
        one_line(error)
        return
    for name, entry in file.entries.items():
        assert file.array(name).shape == entry.shape
        assert file.array(name).nbytes == entry.end - entry.begin


@reuses_the_folder
@given(data=st.data())
def test_a_tensor_file_with_another_header(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(
        path, {"a": np.arange(6, dtype=np.int64), "b": np.ones((2, 3), np.float32), "c": np.zeros(5, np.uint8)}
    )
    header, payload = header_of(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        if header:
            put_json(data.draw, header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + payload)
    read_all(path)


@reuses_the_folder
@given(data=st.data())
def test_a_tensor_file_of_other_bytes(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"a": np.arange(6, dtype=np.int64), "b": np.ones((2, 3), np.float32)})
    path.write_bytes(data.draw(altered(path.read_bytes())))
    read_all(path)


@pytest.mark.parametrize("name", FORMATS)
@reuses_the_folder
@given(data=st.data())
def test_a_saved_matrix_with_other_arrays(tmp_path: Path, name: str, data: st.DataObject) -> None:
    a = sample(name, data.draw(st.sampled_from(["float32", "bfloat16", "int8", "int4"])))
    tensors, stored = tensors_of("w", a), vars(describe(a, {}))
    for key in data.draw(st.lists(st.sampled_from(sorted(tensors)), max_size=2, unique=True)):
        tensors[key] = data.draw(other_array(tensors[key]))
    if data.draw(st.booleans()):
        stored |= data.draw(lies(stored))
    path = tmp_path / "model.safetensors"
    marked = bfloat16_names("w", a) if tensors.get("w::data", np.zeros(0)).dtype == np.uint16 else set()
    write_tensors(path, tensors, bfloat16=marked)
    try:
        found = read_matrix(TensorFile(path), "w", StoredMatrix(**stored))
    except DamagedFile as error:
        one_line(error)
        return
    found.validate()
    assert found.to_dense().shape == tuple(stored["shape"])


@st.composite
def other_array(draw: st.DrawFn, array: np.ndarray) -> np.ndarray:
    """An array with elements overwritten, or of another type or shape."""
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return array.astype(draw(st.sampled_from([np.uint8, np.int8, np.uint16, np.int32, np.int64, np.float32])))
    if kind == 1:
        return np.ascontiguousarray(array.reshape(-1)[: draw(st.integers(0, array.size))])
    if kind == 2:
        return array.reshape(1, *array.shape)
    found = array.copy()
    raw = found.reshape(-1).view(np.uint8)
    for _ in range(draw(st.integers(1, 3))):
        raw[draw(st.integers(0, raw.size - 1))] = draw(st.integers(0, 255))
    return found


def lies(stored: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Another shape, format, type or parameter, of the types that zeroskip.json is checked for."""
    sizes = st.integers(1, 64) | st.sampled_from([2**31 - 1, 2**31])
    names = st.sampled_from(["block", "n", "m", "v", "c", "sigma"])
    return st.one_of(
        st.fixed_dictionaries({"shape": st.tuples(sizes, sizes)}),
        st.fixed_dictionaries({"format": st.sampled_from([*FORMATS, "dense", "nonsense"])}),
        st.fixed_dictionaries({"dtype": st.sampled_from(["float32", "float16", "int8", "int4"])}),
        st.fixed_dictionaries({"group": st.sampled_from([None, 0, 32, 64]), "symmetric": st.booleans()}),
        st.dictionaries(names, sizes | st.lists(sizes, max_size=3), max_size=3).map(
            lambda other: {"params": {**stored["params"], **other}}
        ),
    )


SMTX = b"3, 8, 4\n0 2 2 4\n1 5 0 7\n"
MARKET = b"%%MatrixMarket matrix coordinate real general\n3 8 4\n1 2 1.5\n1 6 -2\n3 1 0.25\n3 8 1e3\n"


@given(st.one_of(altered(SMTX), st.binary(max_size=60)))
def test_a_pattern_of_other_bytes(text: bytes) -> None:
    try:
        found = parse_smtx(text, "x.smtx")
    except DamagedFile as error:
        one_line(error)
        return
    assert found.indptr[-1] == found.indices.size
    assert found.indices.size == 0 or 0 <= found.indices.min() <= found.indices.max() < found.shape[1]


@reuses_the_folder
@given(
    st.one_of(
        altered(MARKET), altered(MARKET.replace(b"real", b"integer")), altered(MARKET.replace(b"general", b"array"))
    )
)
def test_a_matrix_market_file_of_other_bytes(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "x.mtx"
    path.write_bytes(text)
    try:
        found = StoredProblem(path, "x.mtx", "float32", 0).matrix()
    except ZeroskipError as error:
        one_line(error)
        return
    assert np.isfinite(found.values()).all()


@reuses_the_folder
@given(data=st.data())
def test_a_list_of_measurements_of_other_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    """The cache is believed or measured anew; it is never an error, and what is new is kept."""
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path))
    _cache.forget()
    path = tmp_path / _cache.FILE
    path.unlink(missing_ok=True)
    for key in ("a", "b"):
        _cache.remember({"key": key}, [["spmm", 1.0]], budget_s=0.2)
    _cache.flush()
    document = json.loads(path.read_text())
    put_json(data.draw, document)
    path.write_bytes(data.draw(altered(path.read_bytes()) | st.just(json.dumps(document).encode())))
    _cache.forget()
    _cache.recall({"key": "a"}, budget_s=0.2)
    _cache.remember({"key": "c"}, "new", budget_s=0.2)
    _cache.flush()
    _cache.forget()
    assert _cache.recall({"key": "c"}, budget_s=0.2) == "new"


def test_the_samples_are_sound(tmp_path: Path) -> None:
    """Without damage every reader gives what was written."""
    assert parse_smtx(SMTX, "x").indices.tolist() == [1, 5, 0, 7]
    path = tmp_path / "m.safetensors"
    for name in FORMATS:
        for dtype in ("float32", "bfloat16", "int8", "int4"):
            a = sample(name, dtype)
            write_tensors(path, tensors_of("w", a), bfloat16=bfloat16_names("w", a))
            np.testing.assert_array_equal(read_matrix(TensorFile(path), "w", describe(a, {})).to_dense(), a.to_dense())
