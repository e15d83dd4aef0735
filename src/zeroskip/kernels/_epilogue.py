"""Bias and activation in NumPy, for peers whose library does not fuse them."""

from __future__ import annotations

import math

import numpy as np

from ._base import Float32

_SQRT_HALF = np.float32(math.sqrt(0.5))
_SQRT_2_OVER_PI = np.float32(math.sqrt(2.0 / math.pi))
# erf(t) = 1 - (a1 s + ... + a5 s^5) exp(-t^2) with s = 1 / (1 + p t), t >= 0, within 1.5e-7.
_ERF_P = 0.3275911
_ERF_A = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


def finish(out: Float32, bias: Float32 | None, activation: str | None, transposed: bool) -> None:
    """Add `bias` to `out` and apply `activation`, in place."""
    if bias is not None:
        out += bias if transposed else bias[:, None]
    if activation is not None:
        activate(out, activation)


def activate(x: Float32, activation: str) -> None:
    """Apply an activation in place, within the error that `zeroskip.testing.bounds` allows."""
    with np.errstate(all="ignore"):
        if activation == "relu":
            np.maximum(x, 0, out=x)
        elif activation == "tanh":
            np.tanh(x, out=x)
        elif activation == "silu":
            x /= 1 + np.exp(-x)
        elif activation == "gelu":
            x *= np.float32(0.5) * (1 + erf(x * _SQRT_HALF))
        else:
            inner = _SQRT_2_OVER_PI * (x + np.float32(0.044715) * x * x * x)
            x *= np.float32(0.5) * (1 + np.tanh(inner))


def erf(x: Float32) -> Float32:
    """The error function, within 4 unit roundoffs of float32. Its terms are of both signs, so it is summed in float64.

    Source: Abramowitz and Stegun, "Handbook of Mathematical Functions", formula 7.1.26.
    """
    t = np.abs(x.astype(np.float64))
    s = 1 / (1 + _ERF_P * t)
    tail = np.zeros_like(t)
    for a in _ERF_A:
        tail = (tail + a) * s
    result: Float32 = np.copysign(1 - tail * np.exp(-t * t), x).astype(np.float32)
    return result
