"""The exceptions that zeroskip raises: one tree, so that one `except` catches them all.

A message reads `where: argument is value, rule; mend.` and is one line.
"""


class ZeroskipError(Exception):
    """Base of every error that zeroskip raises on purpose."""


class InvalidArgument(ZeroskipError, ValueError):
    """An argument has a value that the call cannot use."""


class ShapeError(InvalidArgument):
    """Shapes that do not fit each other, or the format."""


class DtypeError(InvalidArgument, TypeError):
    """A dtype that the call does not take."""


class FormatError(ZeroskipError, ValueError):
    """Arrays that break the rules of a storage format (offsets, indices, sizes)."""


class DamagedFile(ZeroskipError, ValueError):
    """A file that is truncated, altered, or says something untrue of itself."""


class KernelUnavailable(ZeroskipError, RuntimeError):
    """A kernel asked for by name cannot run here; the message says why."""


class UnsupportedModel(ZeroskipError, ValueError):
    """A model whose architecture zeroskip does not know; the message lists those it does."""


class MissingDependency(ZeroskipError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""
