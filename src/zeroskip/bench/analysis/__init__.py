"""What `zeroskip analyze` does: which sparsity pays on this processor, before anything is pruned."""

from __future__ import annotations

from .runner import Analysis, analyze

__all__ = ["Analysis", "analyze"]
