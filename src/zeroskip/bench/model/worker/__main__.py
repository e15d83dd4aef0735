"""`python -m zeroskip.bench.model.worker`."""

from .loop import serve

serve()
