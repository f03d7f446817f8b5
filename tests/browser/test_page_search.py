"""Search with the page: texts, images of the store, filters, pages, addresses, the back button."""

import httpx
from playwright.sync_api import expect as wait

from pipeline.source.formats.captions import read_captions
from tests.kit.browse import RED, focused, keys, search, shown


def test_a_text_finds_what_the_search_finds(visit, site):
    page = visit("?store=unpruned")
    search(page, RED)
    answer = httpx.get(f"{site.url}/search", params={"text": RED}).json()
    assert keys(page) == [hit["key"] for hit in answer["hits"]]
    assert "red" in page.locator(".hit .name").first.inner_text()
    assert page.url == f"{site.url}/?text=a+large+red+circle&store=unpruned"
    assert page.title() == f"{RED} \u2013 clipsieve"
    assert focused(page, "id") == "text"


def test_the_answer_is_announced(visit):
    page = visit("?store=unpruned")
    search(page, RED)
    said = page.locator("#live").inner_text()
    assert said.startswith("24 of 40 images in ")
    assert page.locator("#live").get_attribute("role") == "status"


def test_weak_matches_stand_below_a_line(visit, site, scenes):
    text = read_captions(scenes / "first" / "captions.tsv")["images/00012.jpg"][0]
    page = visit(f"?text={text}&store=unpruned")
    answer = httpx.get(f"{site.url}/search", params={"text": text}).json()
    assert 0 < answer["num_strong"] < len(answer["hits"])
    assert page.locator(".weak-line").inner_text() == "weak matches below"
    lists = page.locator("ol.hits").evaluate_all("lists => lists.map((list) => list.children.length)")
    assert lists == [answer["num_strong"], len(answer["hits"]) - answer["num_strong"]]


def test_a_first_visit_says_what_there_is_and_what_to_try(visit):
    page = visit()
    assert page.locator(".stores").inner_text().count("images") == 2
    assert {"unpruned", "pruned"} == set(page.locator(".stores h2").all_inner_texts())
    assert "balanced" in page.locator(".stores").inner_text()
    page.locator(".texts a").first.click()
    shown(page, "compare")


def test_an_image_of_the_first_visit_leads_to_similar_ones(visit):
    page = visit("?store=pruned")
    page.locator(".starts a").nth(2).click()
    shown(page, "search")
    assert page.locator(".chip").count() == 1
    assert "like=" in page.url
    assert "store=pruned" in page.url


def test_more_like_this(visit, site):
    page = visit(f"?text={RED}&store=unpruned")
    first = keys(page)[0]
    page.locator(".hit .like").first.click()
    page.wait_for_selector(".chip")
    id_ = page.locator(".chip input").get_attribute("value")
    answer = httpx.get(f"{site.url}/search", params={"like": id_}).json()
    assert keys(page) == [hit["key"] for hit in answer["hits"]]
    assert first not in keys(page)
    assert page.input_value("#text") == ""


def test_several_selected_hits_become_the_query(visit, site):
    page = visit(f"?text={RED}&store=unpruned")
    assert page.locator("#selection").is_hidden()
    for place in (0, 2, 5):
        page.locator(".hit").nth(place).hover()
        page.locator(".pick input").nth(place).check()
    assert page.locator("#selection .main").inner_text() == "Search with 3 selected"
    page.click("#selection .main")
    page.wait_for_selector(".chip")
    ids = page.locator(".chip input").evaluate_all("inputs => inputs.map((one) => one.value)")
    assert len(ids) == 3
    answer = httpx.get(f"{site.url}/search", params={"like": ids}).json()
    assert keys(page) == [hit["key"] for hit in answer["hits"]]
    page.locator(".chip .remove").first.click()
    wait(page.locator(".chip")).to_have_count(2)


def test_a_selection_can_be_cleared(visit):
    page = visit(f"?text={RED}&store=unpruned")
    page.locator(".hit").first.hover()
    page.locator(".pick input").first.check()
    page.click("#selection [type=reset]")
    assert page.locator("#selection").is_hidden()
    assert page.locator(".pick :checked").count() == 0


def test_filters(visit):
    page = visit(f"?text={RED}&store=unpruned")
    page.click("#filters summary")
    assert "width" in page.locator("#columns").inner_text()
    page.fill("#filters [name=where]", "width > height")
    page.fill("#filters [name=k]", "5")
    page.press("#filters [name=k]", "Enter")
    page.wait_for_url("**where=**")
    shown(page, "search")
    sizes = page.locator(".hit img").evaluate_all(
        "all => all.map((one) => [one.getAttribute('width'), one.getAttribute('height')])"
    )
    assert len(sizes) == 5
    assert all(int(width) > int(height) for width, height in sizes)
    assert page.locator("#filters .count").inner_text() == "1"
    assert "k=5" in page.url
    assert "min_relevance" not in page.url  # empty fields stay out of addresses


def test_without_hits_the_page_offers_a_search_without_the_filters(visit):
    page = visit(f"?text={RED}&store=unpruned&where=width > 5000")
    assert "No hits: no image meets the condition" in page.locator(".note").inner_text().capitalize()
    page.click(".none a")
    page.wait_for_selector(".hit")
    assert "where" not in page.url


def test_pages_of_hits(visit):
    page = visit(f"?text={RED}&store=unpruned&k=15")
    first = keys(page)
    page.click("[rel=next]")
    page.wait_for_url("**offset=15**")
    shown(page, "search")
    second = keys(page)
    assert len(second) == 15
    assert not set(first) & set(second)
    assert page.locator("#live").inner_text().startswith("16\u201330 of 40")
    page.click("[rel=prev]")
    page.wait_for_selector("[rel=prev]", state="detached")
    assert keys(page) == first


def test_the_back_button_returns_to_earlier_answers(visit):
    page = visit("?store=unpruned")
    search(page, RED)
    first = keys(page)
    search(page, "a small white circle")
    second = keys(page)
    assert first != second
    page.go_back()
    wait(page.locator("#text")).to_have_value(RED)
    shown(page, "search")
    assert keys(page) == first
    page.go_back()
    shown(page, "first")
    page.go_forward()
    shown(page, "search")
    page.go_forward()
    wait(page.locator("#text")).to_have_value("a small white circle")
    shown(page, "search")
    assert keys(page) == second


def test_an_address_can_be_shared(visit):
    page = visit("?store=pruned")
    page.click("#filters summary")
    page.fill("#filters [name=where]", "width >= 200")
    search(page, RED)
    other = visit(page.url.split("/")[-1])
    assert keys(other) == keys(page)
    assert other.input_value("#text") == RED
    assert other.locator("#filters [name=where]").first.input_value() == "width >= 200"
    assert other.locator("[aria-current]").inner_text() == "pruned"


def test_text_of_a_user_is_never_markup(visit):
    text = "<img src=x onerror=alert(1)>'\"&amp;"
    page = visit("?store=unpruned")
    search(page, text)
    assert page.input_value("#text") == text
    assert page.locator("main h1").text_content() == text
