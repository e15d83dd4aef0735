"""A Hugging Face encoder as an ONNX file, as it is and with its attention fused."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

from ..models import LoadedModel

OPSET = 17


def export(loaded: LoadedModel, path: Path) -> None:
    """Write the model's token vectors as an ONNX graph with free batch and length."""
    import torch

    class Hidden(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask)[0]

    # A copy: a model switched to eager attention and back stays slow (torch 2.13, transformers 5: 2.2 times), and it is
    # the rival that is timed afterwards.
    model = copy.deepcopy(loaded.model)
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")
    free = {0: "batch", 1: "length"}
    ids = torch.ones((2, 9), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0  # a trace without padding would leave the mask out
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Hidden(model),
            (ids, mask),
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=["hidden"],
            dynamic_axes={"input_ids": free, "attention_mask": free, "hidden": free},
            opset_version=OPSET,
            dynamo=False,
        )


def fuse(plain: Path, fused: Path, config: Any) -> None:
    """Write the file again with attention fused by ONNX Runtime's own tool.

    Args:
        plain: What `export` wrote.
        fused: The file to write.
        config: The model's, for its heads and width.
    Raises:
        Exception: Of any kind, on a graph that the tool does not know.
    """
    from onnxruntime.transformers import optimizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = optimizer.optimize_model(
            str(plain),
            model_type="bert",
            num_heads=int(config.num_attention_heads),
            hidden_size=int(config.hidden_size),
            opt_level=0,
        )
    made.save_model_to_file(str(fused))
