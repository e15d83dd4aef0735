"""What every storage format has: sizes, conversion through COO, validation, and the arrays that a file holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from .._errors import FormatError, InvalidArgument, ShapeError
from .._registry import Registry
from ._dtypes import INTEGERS, Array, check_dtype, check_floating, storage_dtype, to_bits, to_float32, value_bytes
from ._interchange import to_numpy
from ._scales import Scales, check_codes, check_scales

if TYPE_CHECKING:
    from .coo import COO

registry: Registry[type[SparseMatrix]] = Registry("format", "zeroskip.formats")

S = TypeVar("S", bound="SparseMatrix")
F = TypeVar("F", bound="type[SparseMatrix]")


def register_format(cls: F) -> F:
    """Class decorator: put a format in the registry under its `name`."""
    registry.add(cls.name, cls)
    return cls


class Entries(NamedTuple):
    """Stored entries in row order: int64 rows and columns, and values in the array form of the matrix's dtype."""

    rows: npt.NDArray[np.int64]
    cols: npt.NDArray[np.int64]
    data: Array


class SparseMatrix(ABC):
    """A matrix (M, K) in one storage format: a frozen dataclass of NumPy arrays.

    The arrays are not copied and must not be changed afterwards: plans and caches rely on them. What `data` means is
    the affair of `decoded` and `values` alone: a quantised matrix (int8, int4) holds codes there, and has `scales`.
    """

    name: ClassVar[str]
    array_names: ClassVar[tuple[str, ...]]
    param_names: ClassVar[tuple[str, ...]] = ()

    shape: tuple[int, int]
    dtype: str
    data: Array
    scales: Scales | None

    def __post_init__(self) -> None:
        where = type(self).__name__
        check_dtype(where, self.dtype)
        object.__setattr__(self, "shape", check_shape(where, self.shape))
        check_scales(where, self.scales, self.dtype, self.shape)
        self.validate()
        if self.scales is not None:
            check_codes(where, self.data, self.dtype)

    @property
    def nnz(self) -> int:
        """Stored entries. Zeros that a format stores as padding count: they cost bytes and multiplications.

        Padding that is marked as such (ELL, SELL) costs bytes alone and does not count.
        """
        return int(self.data.size)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together, two int4 codes in one."""
        rest = sum(int(getattr(self, name).nbytes) for name in self.array_names if name != "data")
        return rest + value_bytes(self.data.size, self.dtype) + (0 if self.scales is None else self.scales.nbytes)

    @property
    def density(self) -> float:
        """nnz / (M K)."""
        return self.nnz / (self.shape[0] * self.shape[1])

    @property
    def sparsity(self) -> float:
        """1 - density, in [0, 1]."""
        return 1.0 - self.density

    @property
    def params(self) -> dict[str, Any]:
        """What describes the layout beside the arrays (block size, N and M); JSON-able."""
        return {name: _jsonable(getattr(self, name)) for name in self.param_names}

    def __repr__(self) -> str:
        extra = "".join(f", {name}={getattr(self, name)}" for name in self.param_names)
        if self.scales is not None:
            extra += f", group={self.scales.group}, symmetric={self.scales.symmetric}"
        return (
            f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype}{extra}, nnz={self.nnz}, "
            f"sparsity={self.sparsity:.4f}, nbytes={self.nbytes})"
        )

    @abstractmethod
    def validate(self) -> None:
        """Check every rule of the layout.

        Raises:
            FormatError: Naming the array, the place and the rule.
        """

    @abstractmethod
    def entries(self) -> Entries:
        """Every stored entry, padding included unless it is marked as such, sorted by row and then by column."""

    @abstractmethod
    def places(self) -> tuple[Array, Array]:
        """The row and the column of each element of `data`, in arrays that broadcast to its shape.

        Padding that is at no place of the matrix (ELL, SELL) counts as column 0 of its row.
        """

    def decoded(self) -> npt.NDArray[np.float32]:
        """What `data` means: float32, exact, in its own shape and order."""
        if self.scales is None:
            return to_float32(self.data, self.dtype)
        return self.scales.decode(self.data, *self.places())

    def values(self, entries: Entries | None = None) -> npt.NDArray[np.float32]:
        """The values of `entries()`, in its order: float32, exact.

        Args:
            entries: What `entries()` gave, to spare a second walk.
        """
        rows, cols, data = self.entries() if entries is None else entries
        return to_float32(data, self.dtype) if self.scales is None else self.scales.decode(data, rows, cols)

    @classmethod
    @abstractmethod
    def from_coo(cls: type[S], coo: COO, **params: Any) -> S:
        """Build from coordinates; duplicates are summed. Codes and scales of a quantised matrix stay as they are."""

    def to_coo(self) -> COO:
        """The entries as coordinates. Formats that pad leave their zeros out: padding cannot be told from a zero."""
        from .coo import COO

        rows, cols, data = self.entries()
        return COO.of(self.shape, rows, cols, data, self.dtype, self.scales)

    @classmethod
    def from_dense(cls: type[S], array: Any, *, dtype: str = "float32", **params: Any) -> S:
        """Store the non-zero elements of a dense matrix.

        Args:
            array: (M, K), floating; NumPy, torch on the CPU, or any DLPack array.
            dtype: Value type to round to, to nearest even. What rounds to zero is not stored; NaN is. For int8 and int4
                store floats and pass the matrix to `zeroskip.quantize.quantize`.
            params: Of the format: `block=(r, c)` for BSR, `n` and `m` for NM.
        """
        from .coo import COO

        where = f"{cls.__name__}.from_dense"
        check_floating(where, dtype)
        dense = to_numpy(where, "array", array)
        if dense.ndim != 2:
            raise ShapeError(f"{where}: array has {dense.ndim} dimensions, a matrix has 2; reshape it first.")
        shape = check_shape(where, dense.shape)
        stored = to_bits(dense, dtype)
        rows, cols = np.nonzero(magnitude_bits(stored, dtype))
        return cls.from_coo(COO.of(shape, rows, cols, stored[rows, cols], dtype), **params)

    def to_dense(self) -> npt.NDArray[np.float32]:
        """A dense float32 matrix; exact, since float32 holds every value type."""
        found = self.entries()
        dense = np.zeros(self.shape, dtype=np.float32)
        dense[found.rows, found.cols] = self.values(found)
        return dense

    @classmethod
    def from_scipy(cls: type[S], matrix: Any, *, dtype: str = "float32", **params: Any) -> S:
        """Take any SciPy sparse matrix or array; duplicates are summed, explicit zeros kept where the format can."""
        from .coo import COO

        where = f"{cls.__name__}.from_scipy"
        check_floating(where, dtype)
        if not hasattr(matrix, "tocoo"):
            raise InvalidArgument(
                f"{where}: matrix is a {type(matrix).__name__}, not a SciPy sparse matrix; use from_dense for arrays."
            )
        found = matrix.tocoo()
        values = to_numpy(where, "matrix.data", found.data)
        shape = check_shape(where, found.shape)
        coo = COO.of(shape, found.row.astype(np.int64), found.col.astype(np.int64), to_bits(values, dtype), dtype)
        return cls.from_coo(coo, **params)

    def to_scipy(self) -> Any:
        """A `scipy.sparse.csr_array` in float32, padding included."""
        from scipy import sparse  # type: ignore[import-untyped, unused-ignore]

        found = self.entries()
        indptr = offsets_of(found.rows, self.shape[0])
        return sparse.csr_array((self.values(found).copy(), found.cols, indptr), shape=self.shape)

    def convert(self, to: type[SparseMatrix] | str, **params: Any) -> SparseMatrix:
        """The same matrix in another format, through COO; itself if it is in that format already.

        Args:
            to: A format class or its name (`registry.names()` lists them).
            params: Of the new format, as in `from_dense`.
        """
        cls = registry.get(to) if isinstance(to, str) else to
        if type(self) is cls and all(self.params.get(key) == _jsonable(value) for key, value in params.items()):
            return self
        return cls.from_coo(self.to_coo(), **params)

    def astype(self: S, dtype: str) -> S:
        """The same entries with values rounded to a floating value type; those of a quantised matrix are decoded."""
        if dtype == check_dtype("astype", self.dtype):
            return self
        data = to_bits(self.decoded(), check_floating("astype", dtype))
        return replace(self, dtype=dtype, data=data, scales=None)  # type: ignore[type-var]

    def arrays(self) -> dict[str, Array]:
        """The arrays by name, in the order of the format's documentation; then those of the scales, if there are any.

        int4 codes are one a byte here, and two a byte in files.
        """
        own = {name: getattr(self, name) for name in self.array_names}
        return own if self.scales is None else {**own, **self.scales.arrays()}

    @classmethod
    def data_shape(
        cls, shape: tuple[int, int], arrays: Mapping[str, Array], params: Mapping[str, Any]
    ) -> tuple[int, ...]:
        """The shape that the other arrays give `data`: for readers of files that pack it. Trusts nothing."""
        raise NotImplementedError

    @classmethod
    def from_arrays(
        cls: type[S],
        shape: tuple[int, int],
        dtype: str,
        arrays: Mapping[str, Array],
        params: Mapping[str, Any],
        *,
        group: int = 0,
    ) -> S:
        """Build from what `arrays()` and `params` gave, trusting nothing: for readers of files.

        Args:
            group: Columns that one scale covers; for int8 and int4.
        Raises:
            FormatError: If arrays or parameters are missing, unknown or break the layout.
        """
        scales = None
        if dtype in INTEGERS and "scales" in arrays:
            scales = Scales(arrays["scales"], group, arrays.get("zeros"))
            arrays = {name: array for name, array in arrays.items() if name not in ("scales", "zeros")}
        for kind, given, wanted in (("arrays", arrays, cls.array_names), ("params", params, cls.param_names)):
            if set(given) != set(wanted):
                raise FormatError(
                    f"{cls.__name__}.from_arrays: {kind} are {sorted(given)}, "
                    f"the format has {sorted(wanted)}; give exactly these."
                )
        fields: dict[str, Any] = {"shape": shape, "dtype": dtype, "scales": scales, **arrays, **params}
        return cls(**fields)


def check_shape(where: str, shape: Any) -> tuple[int, int]:
    """`shape` as a pair of Python ints, each at least 1 and with M K below 2^63."""
    try:
        sizes = tuple(int(size) for size in shape)
        exact = all(size == given for size, given in zip(sizes, shape, strict=True))
    except (TypeError, ValueError):
        raise ShapeError(f"{where}: shape is {shape!r}, a matrix has (rows, columns); give two integers.") from None
    if len(sizes) != 2 or not exact or min(sizes) < 1:
        raise ShapeError(f"{where}: shape is {tuple(shape)}, a matrix has two sizes of at least 1; give (M, K).")
    if sizes[0] * sizes[1] >= 2**63:
        raise ShapeError(f"{where}: shape is {sizes}, rows times columns must stay below 2^63; split the matrix.")
    return sizes[0], sizes[1]


def check_array(where: str, name: str, array: Any, dtypes: tuple[type, ...], ndim: int) -> None:
    """Refuse anything but a C-contiguous NumPy array of one of `dtypes` and of `ndim` dimensions."""
    if not isinstance(array, np.ndarray):
        raise FormatError(f"{where}: {name} is a {type(array).__name__}, not a NumPy array; pass an array.")
    if array.dtype not in tuple(np.dtype(dtype) for dtype in dtypes):
        wanted = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        raise FormatError(f"{where}: {name} has dtype {array.dtype}, the format has {wanted}; convert it.")
    if array.ndim != ndim:
        raise FormatError(f"{where}: {name} has {array.ndim} dimensions, the format has {ndim}; reshape it.")
    if not array.flags.c_contiguous:
        raise FormatError(f"{where}: {name} is not C-contiguous; pass numpy.ascontiguousarray({name}).")


def check_data(where: str, data: Any, dtype: str, ndim: int) -> None:
    """Refuse a `data` array whose NumPy dtype is not the one that stores `dtype`."""
    check_array(where, "data", data, (storage_dtype(dtype).type,), ndim)


def check_size(where: str, name: str, found: tuple[int, ...], wanted: tuple[int, ...], why: str) -> None:
    """Refuse an array of another shape than the layout asks for."""
    if found != wanted:
        raise FormatError(f"{where}: {name} has shape {found}, {why} makes it {wanted}; give arrays that fit.")


def check_offsets(where: str, indptr: Array, stored: int) -> None:
    """Offsets start at 0, never decrease, and end at the number of stored items."""
    if indptr[0] != 0:
        raise FormatError(f"{where}: indptr[0] is {indptr[0]}, offsets start at 0; rebuild the offsets.")
    falls = np.flatnonzero(indptr[1:] < indptr[:-1])
    if falls.size:
        at = int(falls[0])
        raise FormatError(
            f"{where}: indptr[{at + 1}] is {indptr[at + 1]} after {indptr[at]}, offsets never decrease; "
            "rebuild the offsets."
        )
    if indptr[-1] != stored:
        raise FormatError(
            f"{where}: indptr ends at {indptr[-1]} but {stored} entries are stored, both must agree; "
            "the arrays are cut or belong to different matrices."
        )


def check_indices(
    where: str, indptr: Array, indices: Array, limit: int, *, along: str = "row", across: str = "column"
) -> None:
    """Indices lie in [0, limit) and increase strictly within each row, for CSC each column (so none is there twice)."""
    if not indices.size:
        return
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= limit:
        bad = low if low < 0 else high
        at = int(np.argmax(indices == bad))
        raise FormatError(f"{where}: indices[{at}] is {bad}, out of range for {limit} {across}s; rebuild the indices.")
    stays = indices[1:] <= indices[:-1]
    starts = indptr[1:-1]
    stays[starts[(starts > 0) & (starts < indices.size)] - 1] = False
    if stays.any():
        at = int(np.argmax(stays))
        line = int(np.searchsorted(indptr, at, side="right")) - 1
        what = "is there twice" if indices[at] == indices[at + 1] else f"comes after {indices[at]}"
        raise FormatError(
            f"{where}: indices[{at + 1}] = {indices[at + 1]} {what} in {along} {line}, indices increase within a "
            f"{along}; sort them and sum duplicates (COO does both)."
        )


def offsets_of(rows: Array, count: int) -> npt.NDArray[np.int64]:
    """Row offsets (count + 1) of items with the given row numbers."""
    indptr = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=count), out=indptr[1:])
    return indptr


def rows_of(indptr: Array) -> npt.NDArray[np.int64]:
    """The row number of each item: the inverse of `offsets_of`."""
    return np.repeat(np.arange(indptr.size - 1, dtype=np.int64), np.diff(indptr))


def without_zeros(a: SparseMatrix) -> COO:
    """The entries as coordinates without those that are 0: a format that pads cannot tell its padding from a zero."""
    from .coo import COO

    rows, cols, data = a.entries()
    found = magnitude_bits(data, a.dtype) if a.scales is None else data != a.scales.zeros_at(rows, cols)
    kept = np.flatnonzero(found)
    return COO.of(a.shape, rows[kept], cols[kept], data[kept], a.dtype, a.scales)


def padded(coo: COO, shape: tuple[int, ...], places: tuple[Array, Array]) -> Array:
    """An array of `shape` for data of `coo`, all padding: 0, or the code that means 0 at each of `places`."""
    found = np.zeros(shape, dtype=coo.data.dtype)
    if coo.scales is not None and not coo.scales.symmetric:
        found[...] = coo.scales.zeros_at(*places)
    return found


def magnitude_bits(stored: Array, dtype: str) -> Array:
    """An array that is zero exactly where a stored value is +0 or -0."""
    return stored & np.uint16(0x7FFF) if dtype == "bfloat16" else stored


def no_params(cls: type[SparseMatrix], params: Mapping[str, Any]) -> None:
    """Refuse parameters of another format."""
    if params:
        raise InvalidArgument(
            f"{cls.__name__}.from_coo: {', '.join(sorted(params))} is not a parameter of {cls.name}; leave it out."
        )


def _jsonable(value: Any) -> Any:
    return [int(item) for item in value] if isinstance(value, tuple | list) else value


__all__ = [
    "Array",
    "Entries",
    "SparseMatrix",
    "register_format",
    "registry",
]
