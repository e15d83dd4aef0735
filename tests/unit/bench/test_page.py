"""The report page: one file that loads nothing, says what it should, and holds every figure."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from typing import Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from zeroskip.bench.demo import render
from zeroskip.bench.demo.page import plan_rows, terminal
from zeroskip.bench.demo.verdict import verdicts

Document = dict[str, Any]
LOADING = {"src", "srcset", "data", "poster", "background", "action", "formaction", "cite", "manifest"}


class Page(HTMLParser):
    """Collects what a browser would load, and checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [f"{tag} {name}={value}" for name, value in attrs if name in LOADING]
        self.loads += [
            f"{tag} href={value}" for name, value in attrs if name == "href" and not str(value).startswith("#")
        ]
        if tag not in ("meta", "br", "link", "img", "input", "hr"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(params=["encoder", "decoder"])
def document(request: pytest.FixtureRequest) -> Document:
    found: Document = request.getfixturevalue(f"{request.param}_document")
    return found


def test_the_page_loads_nothing(document: Document) -> None:
    html = render(document)
    page = Page(html)
    assert page.loads == []
    assert not {"script", "link", "iframe", "img", "object", "embed"} & set(page.tags)
    assert not re.search(r"url\((?!#)|@import|https?://|//[a-z0-9.-]+\.[a-z]{2,}/", html, flags=re.I)


def test_the_page_is_light_and_dark_and_fits_a_phone(document: Document) -> None:
    html = render(document)
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html
    colours = set(re.findall(r"var\((--[a-z]+)\)", html))
    dark = html.split("prefers-color-scheme: dark")[1].split("* {")[0]
    for name in colours - {"--font", "--mono"}:
        assert f"{name}:" in html.split("prefers-color-scheme")[0]
        assert f"{name}:" in dark
    assert not re.search(r"#0[1-8]0[1-8]0[1-8]", html)


def test_ids_of_figures_do_not_clash(document: Document) -> None:
    html = render(document)
    clips = re.findall(r'<clipPath id="([^"]+)"', html)
    assert len(clips) == len(set(clips))
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(clips)


def test_the_page_has_every_part(document: Document) -> None:
    page = Page(render(document))
    text = " ".join(" ".join(page.text).split())
    decoder = document["model"]["kind"] == "decoder"
    assert page.tags.count("svg") == (7 if decoder else 5)
    for item in document["verdict"]:
        assert item["text"] in text
    for wanted in (document["command"], "AMD EPYC", "0123456789ab", "Seed", document["texts"], "Checks", "passed"):
        assert wanted in text
    assert ("Side by side" in text) == decoder
    if decoder:
        assert "A note." in text
        assert "was a dog & a cat" in text


def test_text_is_escaped(document: Document) -> None:
    document["model"]["name"] = "<script>alert(1)</script>"
    document["layers"][0]["choices"][0]["reason"] = "<img src=x>"
    page = Page(render(document))
    assert "script" not in page.tags
    assert "img" not in page.tags


def test_an_engine_that_is_missing_is_said(encoder_document: Document) -> None:
    engine = encoder_document["speeds"][0]["engines"][1]
    reason = "not installed (onnx): pip install onnx onnxruntime"
    engine.update(status="missing", reason=reason)
    for key in ("rate", "rate_low", "rate_high", "seconds", "samples"):
        del engine[key]
    encoder_document["verdict"] = [item._asdict() for item in verdicts(encoder_document)]
    assert reason in " ".join(Page(render(encoder_document)).text)
    assert reason in terminal(encoder_document)
    assert "times torch, the best rival" in terminal(encoder_document)


def test_the_terminal_says_the_same(document: Document) -> None:
    shown = terminal(document)
    for item in document["verdict"]:
        assert f"{item['title']}. {item['text']}" in shown
    assert "zeroskip, sparse" in shown
    assert "ok" in shown


def test_layers_that_differ_by_number_share_a_row(encoder_document: Document) -> None:
    rows = plan_rows(encoder_document["layers"])
    assert [row["count"] for row in rows] == [6, 6, 6, 5, 6, 6, 1]
    assert rows[0]["name"] == "encoder.layer.*.attention.self.query"
    assert [choice["n"] for choice in rows[0]["choices"]] == [1, 16, 256]


def level(doc: Document, title: str) -> str:
    return next(item.level for item in verdicts(doc) if item.title.startswith(title))


@pytest.mark.parametrize(
    ("cosine", "kept", "wanted"),
    [(0.96, 0.9, "good"), (0.96, 0.8, "fair"), (0.9, 0.9, "fair"), (0.87, 0.9, "poor"), (0.99, 0.6, "poor")],
)
def test_quality_of_embeddings_in_words(cosine: float, kept: float, wanted: str, encoder_document: Document) -> None:
    encoder_document["quality"]["cosine"]["mean"] = cosine
    encoder_document["quality"]["neighbours"]["kept"] = kept
    assert level(encoder_document, "Quality") == wanted


@pytest.mark.parametrize(
    ("ratio", "top1", "wanted"), [(1.05, 0.9, "good"), (1.05, 0.8, "fair"), (1.4, 0.9, "fair"), (1.6, 0.9, "poor")]
)
def test_quality_of_a_language_model_in_words(
    ratio: float, top1: float, wanted: str, decoder_document: Document
) -> None:
    quality = decoder_document["quality"]
    quality["perplexity"]["sparse"] = quality["perplexity"]["dense"] * ratio
    quality["top1"] = top1
    assert level(decoder_document, "Quality") == wanted


@pytest.mark.parametrize(("rate", "wanted"), [(200.0, "good"), (85.0, "fair"), (60.0, "poor")])
def test_speed_in_words_is_against_the_best_rival(rate: float, wanted: str, encoder_document: Document) -> None:
    encoder_document["speeds"][0]["engines"][3]["rate"] = rate
    found = next(item for item in verdicts(encoder_document) if item.title.startswith("Embedding"))
    assert found.level == wanted
    assert "ONNX Runtime, the best rival" in found.text
    assert ("keep the dense model" in found.text) == (wanted == "poor")


def test_a_failed_check_comes_first(document: Document) -> None:
    broken = copy.deepcopy(document)
    broken["checks"][0].update(passed=False)
    assert verdicts(broken)[0].title == "A check failed"
