"""Torch and Hugging Face models to graphs: one file a family."""

from .builder import Lowered
from .families import can_lower, lower

__all__ = ["Lowered", "can_lower", "lower"]
