"""Hits in a notebook: nothing in a store becomes markup, and what is shown is bounded."""

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from query.hits.hit import Hit
from query.hits.html import MOST_SHOWN
from query.hits.notes import WEAK_BELOW
from query.hits.relevance import WEAK
from tests.kit.hits import hits_of

HOSTILE = "<script>alert(1)</script>\"'&lt;</div></style><img src=x onerror=alert(1)>\u202e\x1b[31m\n.png"


class Page(HTMLParser):
    """Tags with their attributes, and the text between them, as a browser reads them."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += "" if self.open[-1:] == ["style"] else data

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def uri(tmp_path):
    Image.new("RGB", (600, 300), (200, 0, 0)).save(tmp_path / "red.png")
    return (tmp_path / "red.png").as_uri()


def hits(num_hits, uri, num_strong=0, **fields):
    return [
        Hit(rank=n, id=n, key=f"{n}.png", uri=uri, score=0.5, relevance=WEAK + num_strong + 0.5 - n, **fields)
        for n in range(1, num_hits + 1)
    ]


def test_thumbnails_with_rank_score_relevance_key_and_caption(uri):
    page = Page(hits_of(hits(2, uri, num_strong=1, caption="a red car"), warnings=("old",), k=5)._repr_html_())
    for text in (
        "a query",
        "Warning: old",
        "2 of 5 hits",
        "1. 0.500",
        f"relevance {WEAK + 0.5:.2f}",
        "2.png",
        "a red car",
    ):
        assert text in page.text
    for stage in ("3.8 ms", "embed 2.0", "filter 0.5", "index 1.0"):
        assert stage in page.text
    [first, _] = page.named("img")
    with Image.open(io.BytesIO(base64.b64decode(first["src"].removeprefix("data:image/jpeg;base64,")))) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (160, 80))
    assert (first["width"], first["height"], first["alt"]) == ("160", "80", "a red car")


def test_hostile_texts_stay_text(uri, tmp_path):
    made = [
        Hit(rank=1, id=1, key=HOSTILE, uri=uri, score=0.5, caption=HOSTILE),
        Hit(rank=2, id=2, key="k", uri=(tmp_path / f"{'<b>' * 3}.png").as_uri(), score=0.4, caption=HOSTILE),
    ]
    page = Page(hits_of(made, query=HOSTILE, warnings=(HOSTILE,))._repr_html_())
    assert {tag for tag, _ in page.tags} == {"div", "style", "p", "figure", "figcaption", "img", "span"}
    assert not {name for _, attributes in page.tags for name in attributes if name.startswith("on")}
    assert [list(attributes) for attributes in page.named("img")] == [["src", "width", "height", "alt"]]
    assert page.text.count("<script>alert(1)</script>\"'&lt;</div>") == 5
    assert not re.search("[\u202e\x1b]", page.text)


def test_an_image_that_cannot_be_opened_is_a_tile_with_the_reason(uri, tmp_path):
    made = [*hits(1, uri), *hits(1, (tmp_path / "gone.png").as_uri())]
    page = Page(hits_of(made)._repr_html_())
    assert len(page.named("img")) == 1
    assert page.text.count("cannot be shown: No such file or directory") == 1


@pytest.mark.parametrize(("num_strong", "num_lines"), [(0, 0), (2, 1), (3, 0)])
def test_a_line_above_the_weak_hits(uri, num_strong, num_lines):
    page = Page(hits_of(hits(3, uri, num_strong=num_strong))._repr_html_())
    assert page.text.count(WEAK_BELOW) == num_lines
    if num_lines:
        assert page.text.index("2.png") < page.text.index(WEAK_BELOW) < page.text.index("3.png")


def test_many_hits_and_long_texts_are_cut(uri):
    page = Page(hits_of(hits(MOST_SHOWN + 7, uri, caption="word " * 5000))._repr_html_())
    assert len(page.named("img")) == MOST_SHOWN
    assert "7 more hits are not shown" in page.text
    assert len(page.text) < 600 * MOST_SHOWN
