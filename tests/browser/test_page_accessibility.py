"""What axe finds in each state of the page: nothing, at any level of severity."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect as wait

from tests.kit.browse import width_of
from tests.kit.service import running

STATES = {
    "first visit": "",
    "results with a selection": "?text=a large red circle&store=unpruned&like=3&k=6",
    "compare": "?text=a large red circle&compare=1&k=6",
    "error with open filters": "?text=red&store=unpruned&where=width > 10&where=nothing",
    "dialog": "?text=red&store=unpruned&k=3",
}
LOOKS = [
    *((375, {"color_scheme": scheme, "forced_colors": "none"}) for scheme in ("light", "dark")),
    *((1280, {"color_scheme": scheme, "forced_colors": "none"}) for scheme in ("light", "dark")),
    (1280, {"color_scheme": "dark", "forced_colors": "active"}),
]
"""Widths, and what the system of a user asks for."""


def violations(page):
    """What axe complains of: the rule, how bad it is, and where."""
    found = Axe().run(page).response["violations"]
    return [(one["id"], one["impact"], [node["html"][:100] for node in one["nodes"]]) for one in found]


def violations_in_every_look(page):
    """The violations by look: those without any are left out."""
    found = {}
    for width, media in LOOKS:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(reduced_motion="reduce", **media)  # no colour is on its way to another one
        found[width, *media.values()] = violations(page)
    return {look: some for look, some in found.items() if some}


@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing(visit, state):
    page = visit(STATES[state])
    if state == "dialog":
        page.locator(".hit .open").nth(1).click()
        wait(page.locator("#viewer")).to_be_visible()
    if "selection" in state:
        page.locator(".pick input").nth(1).check(force=True)
    if "error" in state:
        page.complaints.forget("422")
    assert violations_in_every_look(page) == {}


@pytest.fixture(scope="module")
def guarded(stores):
    """A service that asks for a token."""
    token = "a-token-of-the-tests-only"
    with running(stores[0], flags=("--device", "cpu"), environment={"CLIPSIEVE_SERVE_TOKEN": token}) as own:
        yield own, token


def test_axe_finds_nothing_in_the_login_form(visit, guarded):
    own, _ = guarded
    page = visit(url=own.url)
    assert "/login" in page.url
    assert violations_in_every_look(page) == {}
    page.fill("[name=token]", "not-this-one")
    page.press("[name=token]", "Enter")
    page.wait_for_selector("[role=alert]")
    assert violations(page) == []
    page.complaints.forget("401")


def test_the_page_is_whole_after_the_login(visit, guarded):
    own, token = guarded
    page = visit("?text=red", url=own.url)
    page.fill("[name=token]", token)
    page.press("[name=token]", "Enter")
    page.wait_for_selector(".hit")
    assert page.input_value("#text") == "red"
    assert width_of(page.locator(".hit img").first) > 0
    page.context.clear_cookies()
    page.fill("#text", "a small white circle")
    page.press("#text", "Enter")
    page.wait_for_url("**/login?text=a+small+white+circle")
    page.complaints.forget("401")
