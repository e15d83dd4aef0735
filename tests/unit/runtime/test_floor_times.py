"""From timings of kernels to seconds of rungs: slow minutes, rounding that pays."""

import pytest

from zeroskip.runtime.floor.allocation import Rung
from zeroskip.runtime.floor.times import _rungs
from zeroskip.runtime.measure import Timing
from zeroskip.runtime.values import Values

KIND = ((64, 64), 0)
VALUES = [
    Values.of(dtype, None, x, kind="encoder")
    for dtype, x in (("float32", "float32"), ("bfloat16", "float32"), ("int8", "float32"), ("int8", "int8"))
]


def timing(format, short, long, span, *, acc=""):
    return Timing(f"spmm_{format}_{short}{acc}_scalar", format, long, 1, {16: span})


def dense(span):
    return timing("dense", "f32", "float32", span)


def test_times_are_made_good_for_a_slow_minute_but_not_for_any():
    timings = {
        (KIND, 0.0, "float32"): [],
        (KIND, 0.0, "bfloat16"): [],
        (KIND, 0.0, "int8"): [dense(1.0), timing("dense", "i8", "int8", 0.5, acc="_i32acc")],
        (KIND, 0.5, "float32"): [dense(1.1), timing("csr", "f32", "float32", 0.66)],
        (KIND, 0.5, "bfloat16"): [
            dense(1.2),
            timing("dense", "bf16", "bfloat16", 1.08),
            timing("csr", "bf16", "bfloat16", 0.72),
        ],
        # Only the dense kernel was disturbed: the others were not four times as fast.
        (KIND, 0.5, "int8"): [dense(4.0), timing("csr", "i8", "int8", 0.5), timing("csr", "f32", "float32", 0.6)],
    }
    found = _rungs(KIND, timings, VALUES, 16)
    assert found[Rung()] == 1.0, "the fastest round of the dense kernel"
    assert found[Rung(0.5)] == pytest.approx(0.6)
    assert Rung(0.5, "bfloat16") not in found, "no faster than float32 in the same minute"
    assert found[Rung(0.0, "bfloat16")] == pytest.approx(0.9), "dense in bfloat16 as beside the sparse ones"
    assert found[Rung(0.5, "int8")] == pytest.approx(0.4)
    assert found[Rung(0.0, "int8", "int8")] == pytest.approx(0.5)
    assert Rung(0.0, "int8") not in found, "the only kernel of codes rounds x, which this rung does not"


def test_dense_is_always_a_candidate():
    timings = {(KIND, 0.4, "float32"): [dense(1.0), timing("csr", "f32", "float32", 1.5)]}
    assert _rungs(KIND, timings, VALUES, 16) == {Rung(0.4): 1.0}


def test_a_layer_that_was_not_measured_has_times_of_its_size():
    found = _rungs(KIND, {(KIND, 0.0, "float32"): []}, VALUES[:1], 16)
    assert list(found) == [Rung()]
    assert found[Rung()] > 0
