"""The compiled model: plan, execution, token generation."""

from .compile import compile
from .compiled import CompiledModel, Memory
from .evaluate import Agreement, Perplexity, agreement, perplexity
from .generate import Generation
from .layerplan import Choice, LayerPlan
from .load import load
from .sampling import Sampling

__all__ = [
    "Agreement",
    "Choice",
    "CompiledModel",
    "Generation",
    "LayerPlan",
    "Memory",
    "Perplexity",
    "Sampling",
    "agreement",
    "compile",
    "load",
    "perplexity",
]
