"""WikiText-2's validation text, to calibrate with; the test text is for evaluation only."""

from __future__ import annotations

from .text import TextSource, texts, wikitext2

texts.add(
    "wikitext2",
    TextSource(
        "wikitext2", "validation text of WikiText-2 in ZEROSKIP_DATA_DIR", "CC-BY-SA-3.0", lambda: wikitext2("valid")
    ),
)
