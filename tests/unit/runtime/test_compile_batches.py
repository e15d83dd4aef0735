"""Padded batches to packed sequences and back; batches of texts."""

import numpy as np
import pytest

from zeroskip import DtypeError, InvalidArgument, ShapeError
from zeroskip.runtime.batch import Batch, Output
from zeroskip.runtime.embed import batches, embed_ids, unit


def test_batches_take_every_text_once_longest_first_within_the_budget():
    lengths = np.random.default_rng(0).integers(1, 60, 200).tolist()
    found = list(batches(lengths, 8, 100))
    assert sorted(index for batch in found for index in batch) == list(range(200))
    assert all(len(batch) <= 8 for batch in found)
    assert all(sum(lengths[i] for i in batch) <= 100 or len(batch) == 1 for batch in found)
    order = [lengths[index] for batch in found for index in batch]
    assert order == sorted(order, reverse=True)
    assert list(batches([500], 8, 100)) == [[0]]
    assert list(batches([], 8, 100)) == []


def test_embed_puts_vectors_back_in_order():
    ids = [np.full(length, length, dtype=np.int32) for length in (3, 9, 1, 5)]

    def run(sequences):
        return np.array([[item.mean()] * 2 for item in sequences], dtype=np.float32)

    seen = []
    found = embed_ids(run, ids, features=2, normalize=False, batch_size=2, progress=lambda *at: seen.append(at))
    np.testing.assert_array_equal(found, [[3, 3], [9, 9], [1, 1], [5, 5]])
    assert seen[-1] == ("embed", 4, 4)
    with pytest.raises(InvalidArgument, match="batch_size"):
        embed_ids(run, ids, features=2, normalize=False, batch_size=0)


def test_vectors_of_length_one():
    np.testing.assert_allclose(unit(np.array([[3, 4], [0, 0]], dtype=np.float32)), [[0.6, 0.8], [0, 0]], rtol=1e-6)


def test_right_and_left_padding_are_cut_off():
    ids = [[5, 6, 7], [8, 0, 0], [0, 9, 9]]
    mask = [[1, 1, 1], [1, 0, 0], [0, 1, 1]]
    batch = Batch(ids, mask, 10)
    assert [item.tolist() for item in batch.sequences()] == [[5, 6, 7], [8], [9, 9]]
    padded = batch.pad(np.arange(6, dtype=np.float32)[:, None])
    np.testing.assert_array_equal(padded[..., 0], [[0, 1, 2], [3, 0, 0], [0, 4, 5]])


def test_torch_in_torch_out():
    torch = pytest.importorskip("torch")
    batch = Batch(torch.tensor([[1, 2]]), None, 10)
    assert isinstance(batch.pad(np.zeros((2, 3), dtype=np.float32)), torch.Tensor)
    assert isinstance(Batch([[1, 2]], None, 10).pad(np.zeros((2, 3), dtype=np.float32)), np.ndarray)


@pytest.mark.parametrize(
    ("ids", "mask", "error", "match"),
    [
        ([[1, 10]], None, InvalidArgument, "holds 10"),
        ([[-1, 2]], None, InvalidArgument, "holds -1"),
        ([[1.0, 2.0]], None, DtypeError, "float64"),
        ([[[1]]], None, ShapeError, "shape"),
        ([[]], None, DtypeError, "whole numbers"),
        ([[1], [1, 2]], None, DtypeError, "whole numbers"),
        ([[1, 2]], [[1]], ShapeError, "attention_mask"),
        ([[1, 2]], [[0, 0]], InvalidArgument, "no ones"),
        ([[1, 2, 3]], [[1, 0, 1]], InvalidArgument, "zeros between"),
    ],
)
def test_wrong_batches_are_refused(ids, mask, error, match):
    with pytest.raises(error, match=match):
        Batch(ids, mask, 10)


def test_output_by_name_attribute_and_position():
    out = Output(logits=np.zeros((1, 2, 3)))
    assert out.logits is out["logits"] is out[0]
    assert out.keys() == ["logits"]
    with pytest.raises(AttributeError, match="logits"):
        _ = out.last_hidden_state
