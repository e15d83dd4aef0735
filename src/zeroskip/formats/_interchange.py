"""Arrays of other libraries to NumPy and back: NumPy, torch, and whatever speaks DLPack.

torch is never imported here. A tensor that is passed in shows that torch is loaded already.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import DtypeError, InvalidArgument
from ._dtypes import Array

Float32 = npt.NDArray[np.float32]


def is_torch(array: object) -> bool:
    """Whether `array` is a torch tensor, answered without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, getattr(torch, "Tensor", ()))


def to_numpy(where: str, argument: str, array: Any) -> Array:
    """View (or copy, if there is no other way) a NumPy, torch or DLPack array as a floating NumPy array.

    Narrow types of other libraries (torch's bfloat16) come back as float32, which holds them exactly.

    Raises:
        DtypeError: If the values are not floating point.
        InvalidArgument: If it is not an array, or lives on another device than the CPU.
    """
    if isinstance(array, np.ndarray):
        found = array
    elif is_torch(array):
        found = _from_torch(where, argument, array)
    elif hasattr(array, "__dlpack__"):
        found = _from_dlpack(where, argument, array)
    else:
        raise InvalidArgument(
            f"{where}: {argument} is a {type(array).__name__}, not an array; "
            "pass a NumPy array, a torch tensor or any array that has __dlpack__."
        )
    if found.dtype.kind != "f" or found.dtype.itemsize > 8:
        raise DtypeError(
            f"{where}: {argument} has dtype {found.dtype}, which is not a floating type of at most 64 bits; "
            "convert it to float32."
        )
    return found


def like(array: Any, template: Any) -> Any:
    """Hand a float32 NumPy `array` back as the kind and dtype of `template`, without a copy where dtypes agree."""
    if isinstance(template, np.ndarray):
        return array.astype(template.dtype, copy=False)
    if is_torch(template):
        return sys.modules["torch"].from_numpy(array).to(template.dtype)
    back = _importer(template)
    result = array if back is None else back(array)
    dtype = getattr(template, "dtype", None)
    if back is not None and dtype is not None and result.dtype != dtype:
        return result.astype(dtype) if hasattr(result, "astype") else result
    return result


def _from_torch(where: str, argument: str, tensor: Any) -> Array:
    if tensor.device.type != "cpu":
        raise InvalidArgument(f"{where}: {argument} is on {tensor.device}, not on the CPU; pass {argument}.cpu().")
    if str(tensor.layout) != "torch.strided":
        raise InvalidArgument(
            f"{where}: {argument} has layout {tensor.layout}, not torch.strided; pass {argument}.to_dense()."
        )
    tensor = tensor.detach()
    if tensor.is_floating_point() and str(tensor.dtype) not in ("torch.float16", "torch.float32", "torch.float64"):
        tensor = tensor.float()
    found: Array = tensor.resolve_neg().resolve_conj().numpy()
    return found


def _from_dlpack(where: str, argument: str, array: Any) -> Array:
    try:
        return np.from_dlpack(array)
    except (BufferError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise InvalidArgument(
            f"{where}: {argument} is a {type(array).__module__}.{type(array).__name__} that NumPy cannot take through "
            f"DLPack ({error}); pass a float32 array on the CPU."
        ) from None


def _importer(template: Any) -> Callable[[Array], Any] | None:
    """The `from_dlpack` of the library that `template` comes from, if it has one."""
    space = getattr(template, "__array_namespace__", None)
    if space is not None:
        found: Callable[[Array], Any] | None = getattr(space(), "from_dlpack", None)
        return found
    package = sys.modules.get(type(template).__module__.partition(".")[0])
    return getattr(package, "from_dlpack", None)
