"""The page as the server sends it, without a browser; `tests/browser` looks at it with one."""

import re

import httpx
import pytest

from indexer import build_index
from pipeline.store.tombstones import DELETED, add_tombstones
from tests.kit.service import NO_MODEL, running
from tests.kit.vector_store import unit_vectors, vector_store

TEXT = {"text": "a dog", "store": "store"}


def page_of(service, **params):
    return httpx.get(f"{service.url}/", params=params, headers={"Accept": "text/html"})


@pytest.fixture(scope="module")
def pages(service):
    """Each kind of page."""
    found = {
        "first": page_of(service),
        "search": page_of(service, **TEXT, like=3),
        "compare": page_of(service, text="a dog", compare=1),
        "problem": page_of(service, **TEXT, where="widht > 3"),
    }
    for view, answer in found.items():
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert f'data-view="{view}"' in answer.text
    return {view: answer.text for view, answer in found.items()}


def test_links_are_relative(pages):
    for text in pages.values():
        links = re.findall(r'(?:href|src|action)="([^"]*)"', text)
        assert len(links) > 5
        assert not [one for one in links if not re.match(r"\./|\?|#|static/", one)]


def test_nothing_is_inline(pages):
    for text in pages.values():
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?![^>]* src=)", text)


def test_no_path_of_the_server_is_shown(pages, photos, photos_store):
    for text in pages.values():
        assert str(photos) not in text
        assert str(photos_store) not in text
        assert "file:" not in text


@pytest.mark.parametrize(
    ("params", "status", "said"),
    [
        ({"where": "widht > 3"}, 422, "there is no column &#39;widht&#39;"),
        ({"where": "width >"}, 422, "where, character"),
        ({"k": "many"}, 422, "k: input should be a valid integer"),
        ({"k": "100000"}, 422, "k: input should be less than"),
        ({"min_relevance": "inf"}, 422, "min_relevance: input should be a finite number"),
        ({"like": "99"}, 422, "has no image with the id 99"),
        ({"like_key": "no/such.jpg"}, 422, "has no image with the key"),
        ({"store": "nowhere"}, 404, "there is no store &#39;nowhere&#39;"),
        ({"colour": "red"}, 422, "colour: extra inputs are not permitted"),
        ({"image": "photo.jpg"}, 422, "an address cannot hold an image"),
        ({"offset": "5000"}, 422, "offset: input should be less than"),
    ],
)
def test_the_page_says_what_is_wrong_and_keeps_what_was_typed(service, params, status, said):
    answer = page_of(service, **{**TEXT, **params})
    assert answer.status_code == status
    assert said in answer.text
    assert 'name="text" value="a dog"' in answer.text


def test_markup_in_what_was_typed_is_text(service):
    markup = "<b onclick=x>\"'</b>"
    for params in ({"text": markup}, {"text": "a", "where": markup}, {"text": "a", "store": markup}):
        answer = page_of(service, **params)
        assert "&lt;b onclick=x&gt;" in answer.text
        assert markup not in answer.text


def test_empty_fields_count_as_missing(service):
    answer = page_of(service, **TEXT, where="", min_relevance="", k=" ", unique="")
    assert answer.status_code == 200
    assert "where=" not in answer.text


def test_a_fragment_holds_what_changes(service):
    answer = page_of(service, **TEXT, fragment=1)
    assert answer.text.count("<main") == answer.text.count('id="options"') == 1
    assert "<html" not in answer.text
    assert "fragment" not in answer.text
    assert 'id="search"' not in answer.text


def test_a_first_visit_says_that_there_are_no_images(tmp_path):
    store = vector_store(tmp_path / "store", unit_vectors(20, 16, 0), 20)
    build_index(store.root, proof=False)
    add_tombstones(store, range(20), DELETED)
    with running(store.root, flags=("--device", "cpu"), prelude=NO_MODEL) as own:
        text = page_of(own).text
    assert "<h1>There are no images to search</h1>" in text
    assert "0 images" in text
    assert "Try a description" not in text
    assert "start from an image" not in text


def test_the_stages_are_in_a_header(service):
    assert "text;dur=" in page_of(service, **TEXT).headers["server-timing"]
    assert "index2;dur=" in page_of(service, text="a dog", compare=1).headers["server-timing"]


def test_a_form_with_an_image_is_answered(service, photos):
    image = (photos / "photo-01.png").read_bytes()
    files = {"image": ("mine.png", image, "image/png")}
    fields = {"text": "", "where": ["", "width > 1"], "store": "store", "k": "3"}
    answer = httpx.post(f"{service.url}/", data=fields, files=files)
    assert answer.status_code == 200
    assert re.findall(r'data-key="([^"]*)"', answer.text)[0] == "photo-01.png"
    assert answer.text.count('data-key="') == 3
    both = httpx.post(f"{service.url}/", data={"compare": "1"}, files=files)
    assert 'data-view="compare"' in both.text


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        ({"data": {"text": "a dog"}}, 415, "expected multipart/form-data"),
        ({"files": {"image": ("x.png", b"no image")}}, 422, "image"),
        ({"files": {"photo": ("x.png", b"no image")}}, 422, "another field"),
        ({"content": b"--x", "headers": {"Content-Type": "multipart/form-data"}}, 422, "the form cannot be read"),
    ],
)
def test_a_bad_form_gets_a_page_that_says_why(service, request_, status, said):
    answer = httpx.post(f"{service.url}/", **request_)
    assert answer.status_code == status
    assert 'data-view="problem"' in answer.text
    assert said in answer.text


def test_files_of_the_page_are_asked_for_again_only_when_they_change(service):
    for name, kind in (("style.css", "text/css"), ("page.js", "text/javascript"), ("icon.svg", "image/svg+xml")):
        answer = httpx.get(f"{service.url}/static/{name}")
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["cache-control"] == "no-cache"
        again = httpx.get(f"{service.url}/static/{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert httpx.get(f"{service.url}/static/no.js").status_code == 404
    assert httpx.get(f"{service.url}/static/..%2frender.py").status_code == 404
