"""The survey's masks as a data set."""

from __future__ import annotations

import numpy as np

from zeroskip.datasets import find, registry
from zeroskip.formats import CSR
from zeroskip.sparsify import attention


def test_there_are_84_with_the_entries_they_promise() -> None:
    entries = registry.get("masks").entries()
    assert len({one.name for one in entries}) == 84
    for one in entries:
        assert one.level is not None
        assert one.shape is not None
        assert one.nnz == round((1 - one.level) * one.shape[0] ** 2)


def test_they_are_the_masks_of_their_kind() -> None:
    for kind in ("window", "bigbird"):
        (one,) = find(f"masks/{kind}/512/0.9")
        found, wanted = one.matrix(3), attention.make(kind, 512, 512, sparsity=0.9, seed=3)
        assert isinstance(wanted, CSR)
        assert (found.nnz, found.nnz) == (one.nnz, wanted.nnz)
        np.testing.assert_array_equal(found.indptr, wanted.indptr)
        np.testing.assert_array_equal(found.indices, wanted.indices)
        assert (found.data != 1).any()
