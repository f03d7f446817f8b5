"""Images as queries: uploaded, dropped, pasted."""

import httpx
import pytest
from playwright.sync_api import expect as wait

from tests.kit.browse import keys, shown, transfer


@pytest.fixture
def image(scenes):
    """An image of the store, as a user's own file."""
    return scenes / "first" / "images" / "00011.jpg"


@pytest.fixture
def expected(site, image):
    """What the service finds for it."""
    with image.open("rb") as file:
        return [hit["key"] for hit in httpx.post(f"{site.url}/search", files={"image": file}).json()["hits"]]


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_an_image_is_dropped_or_pasted_anywhere(visit, image, expected, kind):
    page = visit("?store=unpruned")
    transfer(page, kind, image)
    shown(page, "search")
    assert keys(page) == expected
    assert expected[0] == "images/00011.jpg"
    assert page.locator(".sent span").inner_text() == "00011.jpg"
    assert page.locator(".sent img").evaluate("one => one.src.startsWith('blob:')")
    assert page.locator("#drop").is_hidden()
    assert "The image you sent is not part of the address." in page.locator(".note").all_inner_texts()


def test_an_image_is_chosen(visit, image, expected):
    page = visit("?store=unpruned")
    page.click("#by-image summary")
    page.set_input_files("[name=image]", image)
    page.click("#by-image .main")
    shown(page, "search")
    assert keys(page) == expected


def test_a_sent_image_stays_until_it_is_removed(visit, image, expected):
    page = visit("?store=unpruned&k=12")
    transfer(page, "drop", image)
    shown(page, "search")
    page.click("[rel=next]")
    page.wait_for_url("**offset=12**")
    shown(page, "search")
    assert keys(page) == expected[12:24]
    page.go_back()
    wait(page.locator("#live")).to_contain_text("12 of")
    assert keys(page) == expected[:12]
    page.click(".switch a:has-text('Compare')")
    shown(page, "compare")
    assert keys(page, ".column:nth-child(1)") == expected[:12]
    page.click(".sent .remove")
    shown(page, "first")


def test_a_text_is_added_to_an_image(visit, site, image):
    page = visit("?store=unpruned")
    page.fill("#text", "a red circle")
    transfer(page, "drop", image)
    shown(page, "search")
    with image.open("rb") as file:
        answer = httpx.post(f"{site.url}/search", data={"text": "a red circle"}, files={"image": file}).json()
    assert keys(page) == [hit["key"] for hit in answer["hits"]]


def test_a_file_that_is_not_an_image_is_refused_in_the_page(visit, tmp_path):
    page = visit("?store=unpruned")
    file = tmp_path / "notes.jpg"
    file.write_text("no image")
    transfer(page, "drop", file)
    page.wait_for_selector("[role=alert]")
    assert "the image cannot be decoded: not an image" in page.locator(".problem").inner_text()
    page.complaints.forget("422")


def test_pasted_text_is_only_text(visit):
    page = visit("?store=unpruned")
    page.focus("#text")
    page.evaluate(
        """() => {
            const data = new DataTransfer();
            data.setData("text/plain", "a dog");
            const paste = new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
            document.querySelector("#text").dispatchEvent(paste);
        }"""
    )
    assert page.locator("main[data-view=first]:not([aria-busy])").count() == 1  # nothing is being searched for
