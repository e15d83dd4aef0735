"""Values of 8 and 4 bits: codes with one scale for a whole row, or for each group of columns of a row.

One mechanism for every format: a format stores codes where others store numbers, and `Scales` says what they mean. The
value of a code in row i and column k is

    (code - zero[i, k // group]) * scale[i, k // group]

with zero = 0 where the matrix is symmetric. The product is exact in float32: at most 8 bits times 11. A position with
no stored entry is exactly 0, whatever the zero point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import DtypeError, FormatError, InvalidArgument
from ._dtypes import INTEGERS, Array

Float32 = npt.NDArray[np.float32]

GROUPS = (0, 32, 64, 128)
# int8 has no -128: the codes of a symmetric matrix change sign without overflow, as integer kernels need.
CODES = {"int8": (-127, 127), "int4": (-8, 7)}
_NIBBLES = ((np.arange(16) ^ 8) - 8).astype(np.int8)
# The two codes of each byte as one item: a gather of 16-bit items is seven times as fast as one of pairs.
_PAIRS = np.stack((np.tile(_NIBBLES, 16), np.repeat(_NIBBLES, 16)), axis=1).view(np.uint16).ravel()


@dataclass(frozen=True, eq=False)
class Scales:
    """What the codes of a matrix (M, K) mean.

    Args:
        values: Scales, float16, (M, G), finite and above 0.
        group: Columns that one scale covers: 32, 64 or 128, with G = ceil(K / group); 0 for the whole row, G = 1.
        zeros: Zero points, int8, (M, G), each a code; None for 0 everywhere (symmetric).
    """

    values: Array
    group: int = 0
    zeros: Array | None = None

    def __post_init__(self) -> None:
        group = check_group("Scales", self.group)
        object.__setattr__(self, "group", group)
        _check_grid("values", self.values, np.float16)
        if self.zeros is not None:
            _check_grid("zeros", self.zeros, np.int8)
            if self.zeros.shape != self.values.shape:
                raise FormatError(
                    f"Scales: zeros has shape {self.zeros.shape} and values {self.values.shape}, "
                    "both must agree; give one zero point a scale."
                )
        wrong = ~(np.isfinite(self.values) & (self.values > 0))
        if wrong.any():
            row, column = (int(i) for i in np.argwhere(wrong)[0])
            raise FormatError(
                f"Scales: values[{row}, {column}] is {self.values[row, column]}, a scale is finite and above 0; "
                "use 1 where a row or group has no entries."
            )

    @property
    def symmetric(self) -> bool:
        """Whether every zero point is 0 because there are none."""
        return self.zeros is None

    @property
    def nbytes(self) -> int:
        """Two bytes a scale and one a zero point."""
        return self.values.nbytes + (0 if self.zeros is None else self.zeros.nbytes)

    def arrays(self) -> dict[str, Array]:
        """`scales`, and `zeros` where there are any: the names that files and kernels use."""
        return {"scales": self.values} if self.zeros is None else {"scales": self.values, "zeros": self.zeros}

    def columns(self, cols: Array) -> Array:
        """The column of `values` that covers each column of the matrix."""
        return cols // self.group if self.group else np.zeros_like(cols)

    def zeros_at(self, rows: Array, cols: Array) -> npt.NDArray[np.int8]:
        """The code that means 0 at each place."""
        if self.zeros is None:
            return np.zeros(np.broadcast_shapes(np.shape(rows), np.shape(cols)), dtype=np.int8)
        found: npt.NDArray[np.int8] = self.zeros[rows, self.columns(cols)]
        return found

    def decode(self, codes: Array, rows: Array, cols: Array) -> Float32:
        """The values of codes at the given places, in float32 and exact."""
        columns = self.columns(cols)
        numbers = codes.astype(np.float32)
        if self.zeros is not None:
            numbers -= self.zeros[rows, columns]
        numbers *= self.values[rows, columns].astype(np.float32)
        return numbers

    def check(self, where: str, shape: tuple[int, int], dtype: str) -> None:
        """Refuse scales that do not fit a matrix of this shape and type."""
        wanted = grid_shape(shape, self.group)
        if self.values.shape != wanted:
            raise FormatError(
                f"{where}: scales has shape {self.values.shape}, shape {shape} with group {self.group} makes it "
                f"{wanted}; give arrays that fit."
            )
        if self.zeros is not None:
            check_codes(where, self.zeros, dtype, "zeros")


def check_group(where: str, group: Any) -> int:
    """`group` as an int, if scales come in groups of that size."""
    if isinstance(group, bool) or not isinstance(group, int | np.integer) or group not in GROUPS:
        raise InvalidArgument(
            f"{where}: group is {group!r}, a scale covers 32, 64 or 128 columns or, with 0, the whole row; "
            f"choose one of: {', '.join(map(str, GROUPS))}."
        )
    return int(group)


def grid_shape(shape: tuple[int, int], group: int) -> tuple[int, int]:
    """(M, G): how many scales a matrix has."""
    return shape[0], -(-shape[1] // group) if group else 1


def check_scales(where: str, scales: Any, dtype: str, shape: tuple[int, int]) -> None:
    """Codes need scales that fit, numbers have none."""
    if dtype not in INTEGERS:
        if scales is not None:
            raise DtypeError(f"{where}: scales are given but dtype is {dtype}, which has none; leave them out.")
        return
    if not isinstance(scales, Scales):
        raise DtypeError(
            f"{where}: scales is {'None' if scales is None else 'a ' + type(scales).__name__} but dtype is {dtype}, "
            "whose codes need them; pass formats.Scales, or make the matrix with zeroskip.quantize.quantize."
        )
    scales.check(where, shape, dtype)


def check_codes(where: str, codes: Array, dtype: str, name: str = "data") -> None:
    """Refuse codes out of the range of `dtype`."""
    low, high = CODES[dtype]
    if codes.size and (int(codes.min()) < low or int(codes.max()) > high):
        at = tuple(int(i) for i in np.argwhere((codes < low) | (codes > high))[0])
        raise FormatError(
            f"{where}: {name}{list(at)} is {codes[at]}, {dtype} codes lie in [{low}, {high}]; quantise it again."
        )


def pack_nibbles(codes: Array) -> npt.NDArray[np.uint8]:
    """int4 codes in C order, two a byte, the first in the low half; an odd last one has 0 above it."""
    flat = codes.reshape(-1).view(np.uint8)
    packed: npt.NDArray[np.uint8] = flat[0::2] & np.uint8(15)
    packed[: flat.size // 2] |= flat[1::2] << np.uint8(4)
    return packed


def unpack_nibbles(packed: Array, shape: tuple[int, ...]) -> npt.NDArray[np.int8]:
    """The int4 codes of `pack_nibbles`, in an array of `shape`.

    Raises:
        FormatError: If the bytes are too many or too few, or the unused half of the last is not 0.
    """
    count = 1
    for size in shape:
        count *= int(size)
    if packed.dtype != np.uint8 or packed.shape != (-(-count // 2),):
        raise FormatError(
            f"unpack_nibbles: data is {packed.dtype} of shape {packed.shape}, {count} int4 codes take uint8 "
            f"of shape {(-(-count // 2),)}; the arrays are cut or belong to different matrices."
        )
    if count % 2 and packed[-1] >> 4:
        raise FormatError(
            f"unpack_nibbles: the upper half of data[{packed.size - 1}] is {packed[-1] >> 4}, it holds no code and "
            "must be 0; clear it."
        )
    codes: npt.NDArray[np.int8] = _PAIRS[packed].view(np.int8)[:count].reshape(shape)
    return codes


def _check_grid(name: str, array: Any, dtype: type) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != np.dtype(dtype) or array.ndim != 2:
        found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise FormatError(
            f"Scales: {name} is {found}, it must be {np.dtype(dtype).name} of shape (M, groups); convert it."
        )
    if not array.flags.c_contiguous:
        raise FormatError(f"Scales: {name} is not C-contiguous; pass numpy.ascontiguousarray({name}).")
