"""What a sentence-transformers folder or object says about pooling, read without importing sentence_transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .._errors import DamagedFile, UnsupportedModel

_LEGACY_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
POOLINGS = ("mean", "cls", "max")


def sentence_settings(folder: Path) -> dict[str, Any]:
    """`pooling`, `normalize`, `max_seq_length`, `modules_json` (the parsed list) and `transformer_path` of a folder.

    Returns:
        An empty dict where the folder has no modules.json.
    Raises:
        DamagedFile: If a file it names is missing or no JSON.
        UnsupportedModel: If it pools in another way than mean, cls or max, or holds a module that zeroskip does not
            know.
    """
    listing = folder / "modules.json"
    if not listing.is_file():
        return {}
    modules = _read(listing)
    if not isinstance(modules, list) or not all(isinstance(module, dict) and "type" in module for module in modules):
        raise DamagedFile(f"load: {listing} holds no list of modules; fetch the model again.")
    found: dict[str, Any] = {"modules_json": modules, "pooling": "mean", "normalize": False, "transformer_path": ""}
    for module in modules:
        kind = str(module["type"]).rsplit(".", 1)[-1]
        path = _inside(folder, str(module.get("path", "")))
        if kind == "Transformer":
            found["transformer_path"] = str(module.get("path", ""))
            settings = path / "sentence_bert_config.json"
            if settings.is_file():
                found.update({k: v for k, v in _read(settings).items() if k in ("max_seq_length", "do_lower_case")})
        elif kind == "Pooling":
            found["pooling"] = pooling_of(_read(path / "config.json"), str(folder))
        elif kind == "Normalize":
            found["normalize"] = True
        else:
            raise UnsupportedModel(
                f"load: {folder} has a sentence-transformers module {kind!r}; supported are Transformer, Pooling, "
                "Normalize."
            )
    return found


def pooling_of(config: dict[str, Any], where: str) -> str:
    """The pooling that a Pooling module's configuration (in its old or new form) asks for."""
    chosen = config.get("pooling_mode") or [mode for key, mode in _LEGACY_MODES.items() if config.get(key)] or "mean"
    modes = [chosen] if isinstance(chosen, str) else list(chosen)
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise UnsupportedModel(
            f"load: {where} pools by {'+'.join(map(str, modes))}; supported are: {', '.join(POOLINGS)}."
        )
    return str(modes[0])


def settings_of_object(model: Any) -> tuple[dict[str, Any], Any]:
    """The same settings of a SentenceTransformer object, and the Hugging Face model inside it."""
    extra: dict[str, Any] = {"sentence_transformer": model, "pooling": "mean", "normalize": False}
    inner = None
    for module in model:
        kind = type(module).__name__
        if kind == "Transformer":
            inner = getattr(module, "auto_model", None) or getattr(module, "model", None)
        elif kind == "Pooling":
            extra["pooling"] = pooling_of(vars(module), "the SentenceTransformer")
        elif kind == "Normalize":
            extra["normalize"] = True
        elif kind != "Dropout":
            raise UnsupportedModel(
                f"load: a SentenceTransformer with a module {kind!r}; supported are Transformer, Pooling, Normalize."
            )
    if inner is None:
        raise UnsupportedModel("load: the SentenceTransformer holds no Transformer module that zeroskip can read.")
    extra["max_seq_length"] = model.max_seq_length
    return extra, inner


def _inside(folder: Path, relative: str) -> Path:
    path = (folder / relative).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise DamagedFile(
            f"load: {folder}/modules.json names {relative!r}, outside the folder; do not trust this model."
        )
    return path


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedFile(f"load: {path} is missing or no JSON ({error}); fetch the model again.") from error
