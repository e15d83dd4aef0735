"""What the weights of a compiled model are stored as: numbers, or codes with scales.

A layer's weights are rounded once. Every kernel that may run it computes with those weights: kernels of codes with the
codes, kernels of numbers with what the codes mean. What differs is x, which integer kernels round to 8 bits a token,
those of AMX to bfloat16 and those in fixed point to 16 bits, weights and products with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from .._errors import InvalidArgument, ZeroskipError
from ..formats import DTYPES, INTEGERS, NM, DenseMatrix, SparseMatrix, check_group, dense_codes
from ..io import DENSE, Matrix, encode
from ..kernels import X_DTYPES, Kernel, rounds_within, rounds_x_to
from ..quantize import quantize

FLOATING = {"encoder": "float32", "decoder": "float16"}
ACTIVATIONS = X_DTYPES[::-1]
# How far rounding moved weights of SmolLM2 that were pruned to 8:16, of their norm: int8 with a scale a row 0.7 %, int4
# (scales searched) 10.0 % with a scale a row, 8.6 % with groups of 128, 6.7 % with groups of 32. And only int8 with a
# scale a row has kernels made for one token and unstructured patterns.
GROUPS = {"int8": 0, "int4": 32}


@dataclass(frozen=True)
class Values:
    """How weights are stored and which kernels may run them.

    Args:
        dtype: Value type of the stored weights.
        floating: Value type in which kernels of numbers take them; `dtype` itself where that is one of numbers.
        group: Columns that one scale covers, 0 for a row; None for numbers.
        x_dtype: The coarsest type that kernels may round x to: of `X_DTYPES`.
    """

    dtype: str = "float32"
    floating: str = "float32"
    group: int | None = None
    x_dtype: str = "float32"

    @classmethod
    def of(cls, dtype: str | None, group: int | None, activations: str | None, *, kind: str) -> Values:
        """The values that `compile` was asked for, with the defaults for an encoder or a decoder."""
        if dtype in INTEGERS:
            found = GROUPS[dtype] if group is None else group
            return cls(dtype, FLOATING[kind], found, activations or "int8")
        floating = dtype or FLOATING[kind]
        return cls(floating, floating, None, activations or "float32")

    @property
    def quantised(self) -> bool:
        """Whether the stored weights are codes."""
        return self.group is not None

    @property
    def table(self) -> str:
        """Value type of embedding tables: that of the weights, and of 16 bits where those are codes, beside whose
        rounding theirs is nothing."""
        return "float16" if self.quantised else self.dtype

    @property
    def head(self) -> Values:
        """The values of a head that is tied to an embedding table.

        It is the largest matrix of a small model and read for every token, so it has codes of its own beside the table,
        where a kernel multiplies them as they are; else it is the table.
        """
        if self.x_dtype == "int8":
            return Values("int8", self.floating, GROUPS["int8"], self.x_dtype)
        return Values(self.table, self.table, None, self.x_dtype)

    def store(self, weight: Any, format: str, *, name: str) -> Matrix:
        """A float32 weight matrix in a format, rounded.

        Args:
            weight: (M, K).
            format: `dense` or `bitmask`.
            name: Of the layer, for errors.
        """
        if self.group is None:
            return encode(weight, self.dtype, format)
        plain = DenseMatrix(np.ascontiguousarray(weight), "float32") if format == DENSE else None
        try:
            return quantize(
                encode(weight, "float32", format) if plain is None else plain,
                self.dtype,
                group=self.group,
                search=self.dtype == "int4",
            )
        except ZeroskipError as error:
            raise type(error)(f"compile: layer {name!r}: {error}") from None

    def allow(self, kernel: Kernel, matrix: Matrix, structured: SparseMatrix | None) -> bool:
        """Whether a kernel may run a layer: of an allowed value type, with x as it is or rounded, fit for the codes."""
        if not rounds_within(kernel, self.x_dtype):
            return False
        if kernel.dtype not in INTEGERS:
            return True
        if not self.quantised or kernel.dtype != self.dtype:
            return False
        if rounds_x_to(kernel) == "int8":
            if kernel.format == "nm":
                return isinstance(structured, NM) and 16 % structured.m == 0
            return kernel.format == DENSE or matrix.name != DENSE
        if kernel.format == "nm" and not isinstance(structured, NM):
            return False
        return matrix.name != DENSE and (self.group == 0 or not kernel.name.endswith("_n1"))

    def __str__(self) -> str:
        if self.group is None:
            return self.dtype
        return f"{self.dtype}, a scale for {f'{self.group} columns' if self.group else 'a row'}"


FLOAT32 = Values()


def in_format(matrix: Matrix, structured: SparseMatrix | None, format: str) -> Matrix:
    """The codes of a layer in the format that the file is to have."""
    if structured is not None and structured.name == format:
        return structured
    if format == DENSE:
        return dense_codes(matrix)
    return matrix if isinstance(matrix, DenseMatrix) else matrix.convert(format)


def check_values(dtype: str | None, group: int | None, activations: str | None) -> None:
    """Refuse a value type that is none, and settings of codes where weights are numbers.

    Raises:
        InvalidArgument: If one is wrong.
    """

    def refuse(name: str, value: object, rule: str, mend: str) -> NoReturn:
        raise InvalidArgument(f"compile: {name} is {value!r}, {rule}; {mend}.")

    if dtype is not None and dtype not in DTYPES:
        refuse("values", dtype, "which is no value type", f"choose one of: {', '.join(DTYPES)}")
    if activations is not None and activations not in ACTIVATIONS:
        refuse("activations", activations, "which is no type of x", f"choose one of: {', '.join(ACTIVATIONS)}")
    if activations == "bfloat16" and dtype != "bfloat16":
        refuse("activations", activations, "which takes weights in bfloat16", "pass values='bfloat16'")
    if dtype in INTEGERS:
        if group is not None:
            check_group("compile", group)
        return
    if group is not None:
        refuse("group", group, f"but values are {dtype or 'floating'}, which have no scales", "pass values='int8'")
    if activations == "int8":
        refuse("activations", activations, "which takes weights in codes", "pass values='int8' or 'int4'")
