"""Rounding between value types, against values worked out by hand and against torch where it is there."""

from __future__ import annotations

import numpy as np
import pytest

from zeroskip import DtypeError
from zeroskip.formats import FLOATS, UNIT_ROUNDOFF, check_dtype, storage_dtype, to_bits, to_float32


def one(value: float) -> int:
    return int(to_bits(np.array([value], dtype=np.float32), "bfloat16")[0])


def test_bfloat16_keeps_the_upper_half() -> None:
    assert one(1.0) == 0x3F80
    assert one(-2.0) == 0xC000
    assert one(0.0) == 0x0000
    assert one(-0.0) == 0x8000


def test_bfloat16_rounds_to_nearest_and_ties_to_even() -> None:
    ulp = 2.0**-7  # distance of neighbours in [1, 2)
    assert one(1.0 + 0.49 * ulp) == 0x3F80
    assert one(1.0 + 0.51 * ulp) == 0x3F81
    assert one(1.0 + 0.5 * ulp) == 0x3F80  # halfway, 0x3f80 is even
    assert one(1.0 + 1.5 * ulp) == 0x3F82  # halfway, 0x3f81 is odd
    assert one(-(1.0 + 1.5 * ulp)) == 0xBF82


def test_bfloat16_overflow_becomes_infinity_and_subnormals_stay() -> None:
    largest = np.finfo(np.float32).max
    assert one(float(largest)) == 0x7F80
    assert one(-float(largest)) == 0xFF80
    assert one(2.0**-133) == 0x0001  # the smallest bfloat16 subnormal
    assert one(2.0**-134) == 0x0000  # halfway to it, ties to even
    assert one(1.01 * 2.0**-134) == 0x0001


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF])
def test_bfloat16_nan_stays_nan(bits: int) -> None:
    rounded = to_bits(np.array([bits], dtype=np.uint32).view(np.float32), "bfloat16")
    assert np.isnan(to_float32(rounded, "bfloat16"))[0]
    assert (int(rounded[0]) >> 15) == bits >> 31


def test_every_bfloat16_survives_a_round_trip() -> None:
    every = np.arange(65536, dtype=np.uint16)
    back = to_bits(to_float32(every, "bfloat16"), "bfloat16")
    nan = np.isnan(to_float32(every, "bfloat16"))
    np.testing.assert_array_equal(back[~nan], every[~nan])
    assert np.isnan(to_float32(back[nan], "bfloat16")).all()


def test_bfloat16_agrees_with_torch() -> None:
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[~np.isnan(values)]
    ours = to_float32(to_bits(values, "bfloat16"), "bfloat16")
    np.testing.assert_array_equal(ours, torch.from_numpy(values).bfloat16().float().numpy())


@pytest.mark.parametrize("dtype", FLOATS)
def test_unit_roundoff_is_the_largest_relative_error(dtype: str) -> None:
    values = 1.0 + np.random.default_rng(1).random(100_000)
    error = np.abs(to_float32(to_bits(values, dtype), dtype).astype(np.float64) - values) / values
    assert 0.9 * UNIT_ROUNDOFF[dtype] < error.max() <= UNIT_ROUNDOFF[dtype]


def test_float16_overflow_is_infinity_without_a_warning() -> None:
    with np.errstate(all="raise"):
        assert np.isinf(to_bits(np.array([1e6], dtype=np.float32), "float16"))[0]


def test_float32_is_not_copied_back() -> None:
    values = np.ones(4, dtype=np.float32)
    assert to_float32(values, "float32") is values


@pytest.mark.parametrize("dtype", ["float64", "bf16", None, 3, np.float32, ["float32"]])
def test_unknown_dtypes_are_refused(dtype: object) -> None:
    with pytest.raises(DtypeError, match="choose one of: float32, bfloat16, float16"):
        check_dtype("here", dtype)


def test_storage() -> None:
    assert [storage_dtype(dtype) for dtype in FLOATS] == [np.float32, np.uint16, np.float16]
