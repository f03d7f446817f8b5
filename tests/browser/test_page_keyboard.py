"""The page without a mouse."""

from playwright.sync_api import expect as wait

from tests.kit.browse import focused, keys, shown, width_of


def place(page):
    """Which hit has the focus, from 0; None if none has."""
    return page.evaluate(
        "[...document.querySelectorAll('.hit')].findIndex((one) => one.contains(document.activeElement))"
    )


def test_a_whole_journey(visit):
    page = visit()
    press = page.keyboard.press
    assert focused(page, "id") == "text"
    page.keyboard.type("a large red circle")
    press("Enter")
    shown(page, "compare")
    for _ in range(3):  # the button, then the first store of the switch
        press("Tab")
        if "store=unpruned" in (focused(page, "href") or ""):
            break
    press("Enter")
    shown(page, "search")
    assert focused(page, "textContent") == "unpruned"  # where the reader was
    while place(page) != 0:
        press("Tab")
    press("ArrowRight")
    assert place(page) == 1
    press("Tab")
    press("Space")
    assert page.locator("#live").inner_text() == "1 selected"
    press("End")
    press("Tab")
    press("Space")
    assert page.locator("#selection .main").inner_text() == "Search with 2 selected"
    while focused(page, "textContent").strip() != "Search with 2 selected":
        press("Tab")
    press("Enter")
    wait(page.locator(".chip")).to_have_count(2)
    assert focused(page, "id") == "results"  # the button is gone


def test_the_results_and_the_search_box_are_one_key_away(visit):
    page = visit("?text=red&store=unpruned")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.keyboard.press("Tab")
    assert focused(page, "textContent") == "Skip to the results"
    page.keyboard.press("Enter")
    assert focused(page, "id") == "results"
    page.keyboard.press("Tab")
    assert place(page) == 0
    page.keyboard.press("/")
    assert focused(page, "id") == "text"
    assert page.input_value("#text") == "red"
    page.locator(".pick input").first.focus()
    page.keyboard.press("/")
    assert focused(page, "id") == "text"
    page.keyboard.press("End")
    page.keyboard.press("/")
    assert page.input_value("#text") == "red/"
    assert not [url for url in asked if "fragment" in url]


def test_arrow_keys_in_the_grid(visit):
    page = visit("?text=red&store=unpruned&k=30")
    tops = page.locator(".hit").evaluate_all("all => all.map((one) => Math.round(one.getBoundingClientRect().top))")
    columns = tops.count(tops[0])
    assert 2 < columns < 15
    page.locator(".hit .open").first.focus()
    for key, expected in (
        *(("ArrowRight", 1), ("ArrowLeft", 0), ("ArrowLeft", 0), ("End", 29), ("ArrowRight", 29)),
        *(("Home", 0), ("ArrowUp", 0)),
    ):
        page.keyboard.press(key)
        assert place(page) == expected, key
    page.keyboard.press("ArrowDown")
    assert tops[place(page)] == tops[columns]
    page.keyboard.press("ArrowUp")
    assert tops[place(page)] == tops[0]


def test_the_grid_is_one_stop_for_the_tab_key(visit):
    page = visit("?text=red&store=unpruned")
    stops = page.locator(".hit a, .hit input").evaluate_all("all => all.filter((one) => one.tabIndex === 0).length")
    assert stops == 3  # the image, its check box, and what is similar
    page.locator(".hit .open").nth(4).focus()
    assert page.locator(".hit").nth(4).locator("a, input").evaluate_all("all => all.every((one) => one.tabIndex === 0)")
    page.keyboard.press("Shift+Tab")
    assert place(page) == -1


def test_the_large_image_takes_the_focus_and_gives_it_back(visit):
    page = visit("?text=red&store=unpruned")
    first, second = keys(page)[:2]
    page.locator(".hit .open").first.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("#viewer")
    wait(dialog).to_be_visible()
    assert page.evaluate("document.querySelector('#viewer').contains(document.activeElement)")
    assert first in dialog.inner_text()
    assert "Relevance" in dialog.inner_text()
    assert width_of(dialog.locator("img")) >= 160
    page.keyboard.press("ArrowRight")
    assert second in dialog.inner_text()
    page.keyboard.press("Escape")
    wait(dialog).to_be_hidden()
    assert place(page) == 1
    assert focused(page, "className") == "open"


def test_more_like_this_in_the_dialog(visit):
    page = visit("?text=red&store=unpruned")
    page.locator(".hit .open").nth(2).click()
    page.click("#viewer .about .button")
    wait(page.locator(".chip")).to_have_count(1)
    wait(page.locator("#viewer")).to_be_hidden()


def test_a_click_beside_the_dialog_closes_it(visit):
    page = visit("?text=red&store=unpruned")
    page.locator(".hit .open").nth(2).click()
    page.mouse.click(5, 5)
    wait(page.locator("#viewer")).to_be_hidden()
    assert place(page) == 2


def test_a_click_with_ctrl_opens_the_image_elsewhere(visit):
    page = visit("?text=red&store=unpruned")
    with page.context.expect_page() as opened:
        page.locator(".hit .open").first.click(modifiers=["Control"])
    opened.value.wait_for_load_state()
    assert "/images/" in opened.value.url
    assert page.locator("#viewer").is_hidden()
