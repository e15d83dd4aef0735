"""One row of `zeroskip bench spmm`: its fields, and a check that a row holds them (docs/benchmark.md has the table).

A change of meaning or a field taken away raises `VERSION`; a field added does not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from .._errors import InvalidArgument

NAME = "zeroskip.bench.spmm"
VERSION = 1

STATUS = ("ok", "failed", "skipped")
ROLES = ("candidate", "dense", "peer", "rounded")

_TEXT, _INT, _NUMBER, _BOOL, _DICT = (str,), (int,), (int, float), (bool,), (dict,)

FIELDS: dict[str, tuple[tuple[type, ...], bool, str]] = {
    # name: types, whether a row that is not ok may hold null, meaning
    "schema": (_TEXT, False, "always zeroskip.bench.spmm"),
    "schema_version": (_INT, False, "1"),
    "op": (
        _TEXT,
        False,
        "spmm: C[m, n] = A[m, k] @ B[k, n]; sddmm: S[m, k] = Q[m, n] @ K[n, k] at the entries of A, n is the depth",
    ),
    "kernel": (_TEXT, False, "a name from `zeroskip list kernels`"),
    "origin": (_TEXT, False, "who wrote the kernel: native, zeroskip (both ours), torch, numpy, scipy, mkl, ..."),
    "role": (
        _TEXT,
        False,
        "candidate (ours), dense (a rival's dense product), peer (a rival's sparse one), rounded (that rounds B)",
    ),
    "format": (_TEXT, False, "storage format the kernel multiplies from"),
    "dtype": (_TEXT, False, "value type of the weights as the kernel holds them"),
    "group": (_INT, True, "columns that share a scale, 0 for the whole row; null where A has no scales"),
    "x_dtype": (
        _TEXT,
        False,
        "what the kernel makes of B: float32, as it comes; bfloat16, int8: rounded at run time",
    ),
    "isa": (_TEXT, False, "instruction set, or the library's name"),
    "device": (_TEXT, False, "cpu, or cuda: timed by the device's own clock, operands and result on it"),
    "layout": (_TEXT, False, "columns: B (k, n), C (m, n); rows: B (n, k), C (n, m), as a torch Linear has them"),
    "m": (_INT, False, "rows of A"),
    "k": (_INT, False, "columns of A"),
    "n": (_INT, False, "columns of B"),
    "pattern": (_TEXT, False, "unstructured, N:M or block:RxC; stored for the matrix of a file"),
    "sparsity": (_NUMBER, False, "share of zeros asked for; for the matrix of a file, its own"),
    "matrix": (_TEXT, True, "the file that A came from; null for a random A"),
    "model": (_TEXT, True, "of such a file, by its folders model/method/level: the model"),
    "method": (_TEXT, True, "how the model was pruned"),
    "level": (_NUMBER, True, "the sparsity the model was pruned to"),
    "nnz": (_INT, False, "stored entries of A"),
    "dataset": (_TEXT, True, "data set that A is from; null for a random A, and for files given by name"),
    "kind": (_TEXT, True, "of that data set: weights, graph, mask or activations"),
    "oracle": (
        _BOOL,
        False,
        "A with the entries of each row moved to its first columns: headroom of locality",
    ),
    "seed": (_INT, False, "seed of A and B"),
    "status": (_TEXT, False, "ok; failed (wrong result or an exception: never timed); skipped (cannot run here)"),
    "choice": (_TEXT, True, "taken: what `plan` picks here; considered: what it weighed; null: neither, or not asked"),
    "reason": (_TEXT, True, "why it failed or was skipped; null when ok"),
    "error_over_bound": (
        _NUMBER,
        True,
        "largest |C - C64| over the bound of that element; above 1 is failed; x_dtype not float32: of the rounded B",
    ),
    "time_s": (_NUMBER, True, "median of one call"),
    "time_q10_s": (_NUMBER, True, "tenth percentile"),
    "time_q90_s": (_NUMBER, True, "ninetieth percentile"),
    "time_min_s": (_NUMBER, True, "fastest call"),
    "samples": (_INT, True, "calls timed"),
    "rounds": (_INT, True, "interleaved slices they came from"),
    "cold": (_BOOL, True, "whether A had left the caches before each call"),
    "copies": (_INT, True, "copies of A the calls went round; if they fit the caches, these were swept instead"),
    "gflops": (_NUMBER, True, "2 nnz n / time_s / 1e9: only useful work counts, for dense kernels too"),
    "prepare_s": (_NUMBER, True, "time to pack A once"),
    "nbytes": (_INT, True, "bytes of the packed A"),
    "working_set": (_INT, True, "bytes of the packed A and of the dense operands and result, once each"),
    "overhead_s": (_NUMBER, True, "of a call that does nothing, timed in the same way; not subtracted"),
    "dense_kernel": (_TEXT, True, "the fastest rival dense product of this run at this n, with its layout"),
    "speedup": (_NUMBER, True, "its time over this one's"),
    "torch_speedup": (_NUMBER, True, "the time of torch's fastest dense call over this one's; null without torch"),
    "repaid_after": (_INT, True, "calls after which prepare_s is won back from that product; null: never, or no such"),
    "peak_gflops": (_NUMBER, True, "of this run: the fastest dense float32 product of large matrices, ours or NumPy's"),
    "bandwidth": (_NUMBER, True, "GB/s, of this run: memory that no cache holds, read by the fastest dense product"),
    "llc": (_INT, True, "bytes of the last cache, by the processor's own account"),
    "suite": (_TEXT, True, "of `zeroskip bench run`; null without"),
    "node": (_TEXT, True, "which machine of a cluster; null on one machine"),
    "cpus": (_TEXT, True, "processors that the process was bound to; null where it was not"),
    "threads": (_INT, False, "threads of every engine"),
    "settle_max_s": (_NUMBER, False, "how long a slice waits at most for other engines' workers to stop spinning"),
    "machine": (_DICT, False, "processor, caches, instruction sets, memory, system"),
    "versions": (_DICT, False, "of Python, zeroskip and the libraries; null where not installed"),
    "commit": (_TEXT, True, "commit of zeroskip's checkout, + behind it if files differ; null outside of one"),
    "when": (_TEXT, False, "UTC, ISO 8601"),
}

CHOICES = ("taken", "considered")

_OF_A_FILE = frozenset({"matrix", "model", "method", "level", "dataset", "kind"})
_OF_A_RUN = frozenset({"peak_gflops", "bandwidth", "llc", "suite", "node", "cpus", "overhead_s"})
_ALWAYS_NULLABLE = (
    _OF_A_FILE
    | _OF_A_RUN
    | {"group", "choice", "reason", "torch_speedup", "dense_kernel", "speedup", "commit", "repaid_after"}
)
# Fields that came later: rows written before do not have them.
ADDED = _OF_A_RUN | {"dataset", "kind", "oracle", "working_set", "repaid_after", "device"}


def read_rows(path: Path, *, where: str = "bench summary") -> list[dict[str, Any]]:
    """The rows of a file that `--out` wrote.

    Raises:
        InvalidArgument: If it cannot be read, or a line is no row; naming the line.
    """
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{where}: {path} cannot be read ({error}); pass a file of --out.") from None
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            check_row(row if isinstance(row, dict) else {})
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"{where}: line {number} of {path} is no row ({error}).") from None
        rows.append(row)
    return rows


def check_row(row: Mapping[str, Any]) -> None:
    """Refuse a row that does not follow the schema.

    Raises:
        InvalidArgument: Naming the field, its value and the rule.
    """
    check_form(row, FIELDS, NAME, VERSION, optional=ADDED)
    for name, (types, nullable, _) in FIELDS.items():
        if name in ADDED and name not in row:
            continue
        check_field(name, row[name], types, nullable and (row["status"] != "ok" or name in _ALWAYS_NULLABLE))
    closed = {"status": STATUS, "role": ROLES, "layout": ("columns", "rows"), "choice": (None, *CHOICES)}
    for name, allowed in closed.items():
        if row[name] not in allowed:
            raise InvalidArgument(f"bench row: {name} is {row[name]!r}, must be one of {', '.join(map(str, allowed))}.")
    if row["status"] != "ok" and not row["reason"]:
        raise InvalidArgument(f"bench row: status is {row['status']} but reason is empty; say why.")
    if row["status"] == "ok" and not 0 <= row["error_over_bound"] <= 1:
        raise InvalidArgument(f"bench row: error_over_bound is {row['error_over_bound']}, an ok row has at most 1.")


def check_form(
    row: Mapping[str, Any], fields: Collection[str], name: str, version: int, *, optional: Collection[str] = ()
) -> None:
    """Refuse a row of other fields, or of another schema or version. Optional fields may be missing."""
    missing = [field for field in fields if field not in row and field not in optional]
    unknown = [field for field in row if field not in fields]
    if missing or unknown:
        raise InvalidArgument(
            f"bench row: fields missing {missing}, not known {unknown}; give exactly those of the schema."
        )
    if row["schema"] != name or row["schema_version"] != version:
        raise InvalidArgument(
            f"bench row: schema is {row['schema']} {row['schema_version']}, this reader knows {name} {version}; "
            "use the zeroskip that wrote it."
        )


def check_field(name: str, value: Any, types: tuple[type, ...], nullable: bool) -> None:
    """Refuse a value of another type, and what is no finite number."""
    if value is None and nullable:
        return
    wrong_bool = isinstance(value, bool) and bool not in types
    if not isinstance(value, types) or wrong_bool or (isinstance(value, float) and not math.isfinite(value)):
        wanted = " or ".join(kind.__name__ for kind in types) + (" or null" if nullable else "")
        raise InvalidArgument(f"bench row: {name} is {value!r}, must be {wanted}; mend the writer.")


COMPARED = ("ok", "failed", "missing")


def check_compared(
    row: Mapping[str, Any], fields: Mapping[str, tuple[tuple[type, ...], bool, str]], name: str, version: int
) -> None:
    """Refuse a row of a comparison of engines that does not follow its schema.

    Args:
        row: The row.
        fields: By name the types, whether it may be null, its meaning.
        name, version: Of the schema.
    Raises:
        InvalidArgument: Naming the field, its value and the rule.
    """
    check_form(row, fields, name, version)
    for field, (types, nullable, _) in fields.items():
        check_field(field, row[field], types, nullable)
    if row["status"] not in COMPARED:
        raise InvalidArgument(f"bench row: status is {row['status']!r}, must be one of {', '.join(COMPARED)}.")
    if (row["status"] == "ok") == bool(row["reason"]):
        raise InvalidArgument(f"bench row: status is {row['status']}, reason {row['reason']!r}; say why, if not ok.")
