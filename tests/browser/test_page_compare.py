"""Two stores side by side."""

import re

import httpx
import pytest

from tests.kit.browse import ONLY_FIRST, RED, keys, search, shown

TEXT = "a small white circle"


@pytest.fixture
def answer(site):
    """What the two stores answer."""
    return httpx.get(f"{site.url}/compare", params={"text": TEXT, "k": 12}).json()


@pytest.fixture
def page(visit):
    """The page with the same answer."""
    return visit(f"?text={TEXT}&k=12&compare=1")


def marks(page, column):
    """The mark of each hit, by key: its kind, what is seen, and what is read aloud."""
    found = page.locator(f".column:nth-child({column}) .hit").evaluate_all(
        """cards => cards.map((card) => {
            const mark = card.querySelector(".mark");
            const texts = [...mark.children].map((one) => one.textContent);
            return [card.dataset.key, [mark.className.replace("mark ", ""), ...texts]];
        })"""
    )
    return dict(found)


def test_both_answers_stand_side_by_side(page, answer):
    for column, name in ((1, "first"), (2, "second")):
        assert answer[name]["hits"]
        assert keys(page, f".column:nth-child({column})") == [hit["key"] for hit in answer[name]["hits"]]
    assert page.locator(".column h2").all_inner_texts() == ["unpruned", "pruned"]
    assert "policy none" in page.locator(".column .what").first.inner_text()
    assert "policy balanced" in page.locator(".column .what").last.inner_text()
    assert all(re.fullmatch(r"search [0-9.]+ ms", text) for text in page.locator(".column .took").all_inner_texts())
    assert page.locator("#live").inner_text().count(", search ") == 2


def test_the_time_of_the_query_stands_apart(visit):
    page = visit("?text=a text that no test has asked for&k=3&compare=1")
    stages = page.locator(".column .stages").first.inner_text()
    assert re.fullmatch(r"[^;]*; query [0-9.]+ ms before it", stages)
    assert stages.count("query") == 1


def test_what_moved_is_marked_on_each_hit(page, answer):
    before, after = marks(page, 1), marks(page, 2)
    kinds = set()
    for pair in answer["pairs"]:
        key, moved = pair["key"], pair["moved"]
        if moved is not None:
            kind = "up" if moved > 0 else "down" if moved < 0 else "same"
            assert before[key][0] == after[key][0] == kind
            assert after[key][1] == (str(abs(moved)) if moved else "")
            assert f"rank {pair['first']['rank']} in unpruned" in after[key][2]
            assert f"rank {pair['second']['rank']} in pruned" in before[key][2]
        elif pair["second"] is None:
            kind = "gone" if pair["in_second"] else "absent"
            assert before[key][0] == kind
        else:
            kind = "new"
            assert after[key] == ["new", "new", "not among the first 12 of unpruned"]
        kinds.add(kind)
    assert {"up", "down", "same", "new", "gone"} <= kinds


def test_an_image_that_the_second_store_does_not_have_is_not_just_gone(visit):
    page = visit(f"?text={TEXT}&k=40&compare=1")
    found = marks(page, 1)
    assert found[ONLY_FIRST] == ["absent", "not in pruned", "pruned does not have this image at all"]
    assert [key for key, (kind, *_) in found.items() if kind == "absent"] == [ONLY_FIRST]
    page.set_viewport_size({"width": 375, "height": 800})
    badge = page.locator(f"[data-key='{ONLY_FIRST}'] > .mark [aria-hidden]")
    badge.scroll_into_view_if_needed()
    assert badge.evaluate("one => one.scrollWidth <= one.clientWidth")
    badge.evaluate("one => { one.textContent = `not in ${'long'.repeat(20)}`; }")
    card, box = (page.locator(f"[data-key='{ONLY_FIRST}'] {one}").bounding_box() for one in (".open", ".pick"))
    assert card["x"] + box["width"] <= badge.bounding_box()["x"]
    assert page.locator(".moves .absent").inner_text().split() == "1 only in one store".split()


def test_marks_differ_by_more_than_colour(page):
    signs = page.locator(".moves .mark").evaluate_all(
        "all => all.map((one) => getComputedStyle(one, '::before').content)"
    )
    assert len(set(signs)) == len(signs) >= 4
    assert "none" not in signs


def test_the_page_shows_how_much_the_stores_agree(page, answer):
    overlap, rbo = page.locator(".figures dd").all_inner_texts()
    assert overlap.replace("\u2009", " ") == f"{100 * answer['overlap']:.0f} %"
    assert rbo == f"{answer['rank_biased_overlap']:.2f}"
    assert page.locator("#live").inner_text().startswith(f"{100 * answer['overlap']:.0f} % of the images are shared")
    assert page.locator(".figures small").inner_text() == "1 = same order; the top counts most"
    assert page.locator(".drawing path").count() == len(answer["pairs"])


def test_the_switch_keeps_the_text_and_the_images(visit):
    page = visit(f"?text={TEXT}&store=unpruned")
    page.locator(".hit .like").first.click()
    page.wait_for_selector(".chip")
    expected = page.locator(".chip span").inner_text()
    page.click(".switch a:has-text('Compare')")
    shown(page, "compare")
    assert page.locator(".chip span").inner_text() == expected
    assert "like_key=" in page.url  # ids are those of one store
    page.locator(".switch a").nth(1).click()
    shown(page, "search")
    assert page.locator(".chip span").inner_text() == expected
    page.fill("#text", "typed, not sent")
    page.locator(".switch a").first.click()
    page.wait_for_url("**typed**")


def test_the_same_image_is_shown_in_the_other_column(page):
    page.locator(".column:nth-child(2) .hit").first.hover()
    key = keys(page, ".column:nth-child(2)")[0]
    twins = page.locator(".twin").evaluate_all("all => all.map((one) => one.dataset.key)")
    assert twins == [key]


def test_a_selection_counts_an_image_once(page, answer):
    shared = next(pair for pair in answer["pairs"] if pair["moved"] is not None)
    page.locator(f".column:nth-child(2) [data-key='{shared['key']}']").hover()
    page.locator(f".column:nth-child(2) [data-key='{shared['key']}'] .pick input").check()
    assert page.locator(".pick :checked").count() == 2
    assert page.locator("#selection .main").inner_text() == "Search with 1 selected"
    page.click("#selection .main")
    page.wait_for_selector(".chip")
    shown(page, "compare")
    assert page.locator(".chip").count() == 1


def test_more_shows_more_of_both(page):
    page.click(".paging a")
    page.wait_for_url("**k=24**")
    shown(page, "compare")
    assert len(keys(page, ".column:nth-child(1)")) == 24


def test_a_new_search_still_compares(page):
    search(page, RED, view="compare")
    assert "compare=1" in page.url
