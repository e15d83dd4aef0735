"""The documentation that comes with every Python, as the default text: nearly half a megabyte of English, no network
needed."""

from __future__ import annotations

from .text import TextSource, texts


def read() -> str:
    """All topics of `pydoc_data`, in alphabetical order; each paragraph on one line, code examples left out."""
    from pydoc_data.topics import topics

    blocks = "\n\n".join(topics[name] for name in sorted(topics)).split("\n\n")
    prose = (block for block in blocks if not block.lstrip(" ").startswith((">>>", "...")))
    return "\n".join(" ".join(block.split()) for block in prose if block.strip())


texts.add(
    "pydoc",
    TextSource("pydoc", "the documentation in this Python, pydoc_data.topics", "PSF-2.0", read),
)
