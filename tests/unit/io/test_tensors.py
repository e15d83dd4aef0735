"""safetensors files: ours are read by others, theirs by us, and headers that lie are refused."""

import json

import numpy as np
import pytest

from zeroskip import DamagedFile, DtypeError
from zeroskip.io import TensorFile, write_tensors

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b::bits": np.array([1, 2, 255], dtype=np.uint8),
    "b::indptr": np.array([0, 2], dtype=np.int64),
    "c": np.array([1.5, -2.0], dtype=np.float16),
    "d": np.array([0x3F80, 0xC000], dtype=np.uint16),
    "empty": np.zeros((0, 4), dtype=np.float32),
}


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "x.safetensors"
    write_tensors(found, ARRAYS, bfloat16={"d"}, metadata={"format": "test"})
    return found


@pytest.mark.parametrize("mapped", [True, False])
def test_round_trip(path, mapped):
    file = TensorFile(path, mapped=mapped)
    assert set(file.names()) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(file.array(name), array)
        assert file.array(name).dtype == array.dtype
        assert file.array(name).shape == array.shape
    assert file.code("d") == "BF16"
    assert file.metadata == {"format": "test"}


@pytest.mark.parametrize("mapped", [True, False])
def test_tensors_are_views_and_aligned(path, mapped):
    file = TensorFile(path, mapped=mapped)
    for name in ("a", "b::indptr", "c"):
        array = file.array(name)
        assert not array.flags.owndata
        assert not array.flags.writeable
        assert array.ctypes.data % array.dtype.itemsize == 0


def test_the_reference_library_reads_ours(path):
    safe_open = pytest.importorskip("safetensors").safe_open
    torch = pytest.importorskip("torch")
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(ARRAYS)
        np.testing.assert_array_equal(file.get_tensor("a").numpy(), ARRAYS["a"])
        assert file.get_tensor("d").dtype == torch.bfloat16
        assert file.get_tensor("d").tolist() == [1.0, -2.0]


def test_we_read_what_the_reference_library_writes(tmp_path):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    arrays = {"x": np.arange(5, dtype=np.float32), "y": np.arange(3, dtype=np.int8), "z": np.array([True, False])}
    save_file(arrays, tmp_path / "y.safetensors")
    file = TensorFile(tmp_path / "y.safetensors")
    for name, array in arrays.items():
        np.testing.assert_array_equal(file.array(name), array)


def test_unknown_dtype_is_refused_on_writing(tmp_path):
    with pytest.raises(DtypeError, match="complex64"):
        write_tensors(tmp_path / "x", {"a": np.zeros(2, dtype=np.complex64)})


def test_missing_tensor_and_missing_file(path, tmp_path):
    with pytest.raises(DamagedFile, match="no tensor 'nope'"):
        TensorFile(path).array("nope")
    with pytest.raises(DamagedFile, match="cannot be read"):
        TensorFile(tmp_path / "none")


def craft(path, header, payload):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + payload)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("header", "payload", "match"),
    [
        ({"a": entry(offsets=(0, 8)), "b": entry(offsets=(4, 12))}, 12, "overlaps"),
        ({"a": entry(offsets=(0, 8)), "b": entry(offsets=(12, 20))}, 20, "hole"),
        ({"a": entry(offsets=(0, 8))}, 4, "outside"),
        ({"a": entry(offsets=(8, 0))}, 8, "outside"),
        ({"a": entry()}, 16, "its header says 8"),
        ({"a": entry(shape=(3,))}, 8, "not what F32"),
        ({"a": entry(shape=(2**40, 2**40))}, 8, "not what F32"),
        ({"a": entry(shape=(-2,))}, 8, "no list of sizes"),
        ({"a": entry(shape=(True, 2))}, 8, "no list of sizes"),
        ({"a": entry(dtype="Q4")}, 8, "dtype 'Q4'"),
        ({"a": entry(dtype=["F32"])}, 8, "dtype"),
        ({"a": {"dtype": "F32"}}, 8, "described"),
        ({"a": 3}, 8, "described"),
        ([1], 8, "not a JSON object"),
        (b'{"a": ', 8, "not JSON"),
        (b'{"a": 1, "a": 1}', 8, "twice"),
        (b"\xff\xfe", 8, "not JSON"),
        (b"[" * 100_000, 8, "not JSON"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, header, payload, match):
    with pytest.raises(DamagedFile, match=match):
        TensorFile(craft(tmp_path / "x", header, bytes(payload)))


@pytest.mark.parametrize("content", [b"", b"\x01", (2**63).to_bytes(8, "little"), (100).to_bytes(8, "little") + b"{}"])
def test_header_lengths_that_lie_are_refused(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match="header length"):
        TensorFile(path)


def test_every_truncation_is_refused(path, tmp_path):
    content = path.read_bytes()
    cut = tmp_path / "cut"
    for size in range(0, len(content), 7):
        cut.write_bytes(content[:size])
        with pytest.raises(DamagedFile):
            TensorFile(cut)


def test_a_file_that_was_read_may_change_afterwards(path):
    file = TensorFile(path, mapped=False)
    path.write_bytes(b"")
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(file.array(name), array)


def test_a_file_that_shrinks_while_it_is_read_is_refused(path, monkeypatch):
    read = TensorFile._read

    def shrink(self, start, nbytes):
        path.write_bytes(path.read_bytes()[:-8])
        return read(self, start, nbytes)

    monkeypatch.setattr(TensorFile, "_read", shrink)
    with pytest.raises(DamagedFile, match="became shorter"):
        TensorFile(path, mapped=False)
