"""Write a pruned model as an ordinary Hugging Face folder: complete, or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._errors import InvalidArgument, UnsupportedModel, ZeroskipError
from .loading import LoadedModel, load
from .report import PruneReport

Progress = Callable[[str, int, int], None]
REPORT_FILE = "zeroskip_prune.json"
# What a sentence-transformers folder holds beside the transformer itself.
_SENTENCE_FILES = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json")


def save_pruned(
    loaded: LoadedModel | Any,
    folder: str | Path,
    report: PruneReport | None = None,
    *,
    progress: Progress | None = None,
) -> Path:
    """Write model, tokenizer and report to `folder`, which any Hugging Face tool can load.

    Everything goes to a folder beside it first, which takes its place at the end: an interruption, an error or a full
        disk
    leaves what was there before.

    Args:
        loaded: What `models.load` gave (or a Hugging Face model), pruned.
        folder: New, empty, or an earlier result of this function.
        report: What `prune` returned; written as zeroskip_prune.json.
        progress: Called with (stage, done, total).
    Raises:
        InvalidArgument: If `folder` holds something else.
        UnsupportedModel: If the model is no Hugging Face model.
        ZeroskipError: If it cannot be written (full disk, no permission).
    """
    loaded = load(loaded)
    target = Path(folder).expanduser()
    _check_target(target)
    if not hasattr(loaded.model, "save_pretrained"):
        raise UnsupportedModel(
            f"save: {type(loaded.model).__name__} is a plain torch model, which has no folder format; "
            "use torch.save, or zeroskip.compile(model).save(folder)."
        )
    tell = progress or (lambda _stage, _done, _total: None)
    with replaced_folder(target) as scratch:
        tell("save", 0, 3)
        loaded.model.save_pretrained(scratch, safe_serialization=True)
        tell("save", 1, 3)
        if loaded.tokenizer is not None:
            loaded.tokenizer.save_pretrained(scratch)
        _keep_sentence_files(loaded, scratch)
        tell("save", 2, 3)
        if report is not None:
            (scratch / REPORT_FILE).write_text(json.dumps(report.to_dict(), indent=2) + "\n", encoding="utf-8")
        tell("save", 3, 3)
    return target


def _check_target(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise InvalidArgument(f"save: {target} is a file; choose a folder.")
    if target.is_dir() and any(target.iterdir()) and not (target / REPORT_FILE).is_file():
        raise InvalidArgument(
            f"save: {target} is not empty and was not written by zeroskip prune; choose another folder."
        )


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """A scratch folder that takes the place of `target` when the body ends well, and vanishes when it does not.

    Raises:
        ZeroskipError: For an OSError, from the body too; whatever was at `target` is still there.
    """
    scratch: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        scratch.chmod(0o755)
        yield scratch
        _swap(scratch, target)
    except OSError as error:
        raise ZeroskipError(_cannot_write(target, error)) from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # safetensors reports a full disk as its own error
            raise
        raise ZeroskipError(_cannot_write(target, error)) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def _swap(scratch: Path, target: Path) -> None:
    """Put `scratch` at `target`; if that fails, what was there comes back."""
    if not target.exists():
        scratch.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
    try:
        target.rename(aside / "old")
        try:
            scratch.rename(target)
        except BaseException:
            (aside / "old").rename(target)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _cannot_write(target: Path, error: Exception) -> str:
    return (
        f"save: cannot write {target} ({' '.join(str(error).split())}); what was there is unchanged. Free space, or "
        "choose another folder."
    )


def _keep_sentence_files(loaded: LoadedModel, scratch: Path) -> None:
    """Copy what makes the folder a sentence-transformers model, so that pooling and normalisation are kept."""
    modules = loaded.extra.get("modules_json")
    source = loaded.extra.get("folder")
    if not modules or source is None:
        _write_sentence_modules(loaded, scratch)
        return
    inner = Path(source) / next((m.get("path", "") for m in modules if str(m["type"]).endswith(".Transformer")), "")
    for name in _SENTENCE_FILES:
        found = next((base / name for base in (Path(source), inner) if (base / name).is_file()), None)
        if found is not None:
            shutil.copyfile(found, scratch / name)
    kept = [dict(module) for module in modules]
    for module in kept:
        if str(module["type"]).endswith(".Transformer"):
            module["path"] = ""  # the transformer is saved at the top, wherever it was
        elif (Path(source) / module["path"]).is_dir():
            shutil.copytree(Path(source) / module["path"], scratch / module["path"])
    (scratch / "modules.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def _write_sentence_modules(loaded: LoadedModel, scratch: Path) -> None:
    """The same files made anew for a SentenceTransformer that was passed as an object."""
    if "sentence_transformer" not in loaded.extra:
        return
    prefix = "sentence_transformers.models"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{prefix}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{prefix}.Pooling"},
    ]
    if loaded.extra["normalize"]:
        modules.append({"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{prefix}.Normalize"})
    (scratch / "modules.json").write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")
    (scratch / "1_Pooling").mkdir()
    pooling = {
        "word_embedding_dimension": loaded.model.config.hidden_size,
        "pooling_mode_cls_token": loaded.extra["pooling"] == "cls",
        "pooling_mode_mean_tokens": loaded.extra["pooling"] == "mean",
        "pooling_mode_max_tokens": loaded.extra["pooling"] == "max",
    }
    (scratch / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2) + "\n", encoding="utf-8")
    settings = {"max_seq_length": loaded.extra["max_seq_length"], "do_lower_case": False}
    (scratch / "sentence_bert_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
