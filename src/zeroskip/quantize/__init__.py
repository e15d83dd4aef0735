"""Values of fewer bits, for any storage format: the pattern stays, the values become codes with scales."""

from .rounding import dequantize, quantize

__all__ = ["dequantize", "quantize"]
