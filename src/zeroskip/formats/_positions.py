"""Positions in groups of m, as files hold them: the bits that m needs, and no more.

ceil(log2 m) bits are cut into fields of 8, 4, 2 and 1 bits, the low bits in the widest field: 5 bits are 4 and 1. All
fields of one width stand together, in order, 8 / width of them a byte, the first in the lowest bits. Reading is then
one gather a width, whatever m is; a stream of 5-bit numbers has no such table.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .._errors import FormatError
from ._dtypes import Array

Bytes = npt.NDArray[np.uint8]


def position_bits(m: int) -> int:
    """Bits of a position in a group of m, at least 1."""
    return max(1, (m - 1).bit_length())


def pack_positions(positions: Array, m: int) -> Bytes:
    """The bytes of positions below m, in C order; unused bits of the last byte of a width are 0."""
    flat, parts = positions.reshape(-1), []
    for shift, width in _fields(m):
        part = (flat >> np.uint8(shift)) & np.uint8((1 << width) - 1)
        every = 8 // width
        packed = np.zeros(-(-flat.size // every), dtype=np.uint8)
        for place in range(every):
            own = part[place::every]
            packed[: own.size] |= own << np.uint8(place * width)
        parts.append(packed)
    return np.concatenate(parts)


def unpack_positions(packed: Array, m: int, shape: tuple[int, ...]) -> Bytes:
    """The positions of `pack_positions`, in an array of `shape`. Whether they lie below m is not looked at.

    Raises:
        FormatError: If the bytes are too many or too few, or unused bits are not 0.
    """
    count = 1
    for size in shape:
        count *= int(size)
    sizes = [-(-count * width // 8) for _, width in _fields(m)]
    if packed.dtype != np.uint8 or packed.shape != (sum(sizes),):
        raise FormatError(
            f"unpack_positions: positions is {packed.dtype} of shape {packed.shape}, {count} positions in groups of "
            f"{m} take uint8 of shape {(sum(sizes),)}; the arrays are cut or belong to different matrices."
        )
    found: Bytes = np.zeros(0, dtype=np.uint8)
    at = 0
    for (shift, width), size in zip(_fields(m), sizes, strict=True):
        part = packed[at : at + size]
        at += size
        used = count * width % 8
        if used and part[-1] >> used:
            raise FormatError(
                f"unpack_positions: positions[{at - 1}] has bits set beyond the last position, these must be 0; "
                "clear them."
            )
        fields = _spread(part, width)[:count]
        found = fields if shift == 0 else np.bitwise_or(found, fields << np.uint8(shift), out=found)
    return found.reshape(shape)


def _fields(m: int) -> list[tuple[int, int]]:
    """Shift and width of each field: the binary digits of the number of bits, from the largest on."""
    bits, shift, found = position_bits(m), 0, []
    for width in (8, 4, 2, 1):
        if bits & width:
            found.append((shift, width))
            shift += width
    return found


def _spread(part: Array, width: int) -> Bytes:
    """The fields of each byte, a byte each."""
    found: Bytes = part if width == 8 else _TABLES[width].take(part).view(np.uint8)
    return found


def _table(width: int) -> Array:
    """For each byte its fields, as one item of 8 / width bytes: one gather then moves all of them."""
    shifts = np.arange(0, 8, width)
    fields = ((np.arange(256)[:, None] >> shifts) & ((1 << width) - 1)).astype(np.uint8)
    return np.ascontiguousarray(fields).view(f"u{8 // width}").ravel()


_TABLES = {width: _table(width) for width in (4, 2, 1)}
