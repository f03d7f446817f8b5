"""The report of a sweep in a real browser, opened as a file."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from query.evaluation.report.write import write_report
from tests.kit.results import SERIES, made_results, many
from tests.kit.sweep_folder import add_kept_patches, made_folder

SECTIONS = [
    "Recommended settings",
    "Recall against speed",
    "Where the loss comes from",
    "Example queries",
    "Kept patches",
    "Mixed galleries",
    "Gates",
    "Ties, duplicates, all metrics",
    "What the words mean",
    "How it was measured",
]
LOOKS = [(width, scheme) for width in (375, 1280) for scheme in ("light", "dark")]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with everything in it."""
    results = made_results()
    folder = made_folder(tmp_path_factory.mktemp("sweep") / "out", results)
    add_kept_patches(folder, results.conditions[3].condition.key)
    return write_report(results, folder)[0].as_uri()


@pytest.fixture(scope="module")
def large_report(tmp_path_factory):
    """A report of more than 60 conditions with long names, on two data sets."""
    results = made_results(
        {**SERIES, **many(9), "x" * 60: ("condition", [("y" * 100, 1.7, 0.9)])}, data=("a", "b" * 60)
    )
    return write_report(results, made_folder(tmp_path_factory.mktemp("sweep") / "out", results))[0].as_uri()


@pytest.fixture
def read(browser):
    """Opens a report. Requests and complaints of the browser fail the test."""
    contexts, heard = [], []

    def open_(uri, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda line: heard.append(line.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: heard.append(request.url) if request.url != uri else None)
        page.goto(uri)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert [one for one in heard if not one.startswith("data:")] == []


def opened(page):
    page.eval_on_selector_all("details", "all => all.forEach((one) => { one.open = true; })")


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_axe_finds_nothing(read, report, width, scheme):
    page = read(report, width, scheme)
    opened(page)
    found = Axe().run(page).response["violations"]
    assert [(one["id"], one["impact"], [node["html"][:100] for node in one["nodes"]]) for one in found] == []


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_the_page_does_not_scroll_sideways(read, report, large_report, width):
    for uri in (report, large_report):
        page = read(uri, width)
        opened(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_sections_are_in_order_and_the_contents_lead_to_them(read, report):
    page = read(report)
    assert page.locator("h2").all_inner_texts() == SECTIONS
    assert page.locator("nav a").all_inner_texts() == SECTIONS
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1


def test_every_picture_is_shown_and_has_a_text(read, report):
    page = read(report)
    loaded = page.locator("img").evaluate_all(
        """all => Promise.all(all.map(async (one) => {
            await one.decode();
            return one.naturalWidth > 0 && one.alt !== "";
        }))"""
    )
    assert len(loaded) > 40
    assert all(loaded)
    assert all(page.locator("svg").evaluate_all("all => all.map((one) => one.getAttribute('aria-label').length > 20)"))


@pytest.mark.parametrize(("width", "shown"), [(375, "narrow"), (1280, "wide")])
def test_a_phone_gets_the_narrow_plot(read, report, width, shown):
    page = read(report, width)
    plots = page.locator(".plot").first
    assert plots.locator(f".{shown} svg").is_visible()
    assert plots.locator("svg:visible").count() == 1
    size = plots.locator("svg:visible text").first.evaluate("one => one.getBoundingClientRect().height")
    assert size >= 9


def test_plots_follow_light_and_dark(read, report):
    fills = {}
    for scheme in ("light", "dark"):
        page = read(report, scheme=scheme)
        fills[scheme] = page.locator(".plot .wide svg text").first.evaluate("one => getComputedStyle(one).fill")
    assert fills["light"] != fills["dark"]


def test_the_right_image_is_marked_in_words(read, report):
    page = read(report)
    marked = page.locator(".hits .right .rank").all_inner_texts()
    assert marked
    assert all(text.endswith("right") for text in marked)


def test_all_sections_are_printed(read, report):
    page = read(report, scheme="dark")
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("h2:visible").all_inner_texts() == SECTIONS
    assert not page.locator("nav").is_visible()
    # what is folded on the screen is printed, apart from what other tables hold as well
    for table in ("steps-0", "variants-0", "fidelity-0", "settings"):
        assert page.locator(f"#{table} td").first.evaluate("one => one.checkVisibility({contentVisibilityAuto: true})")
    assert not page.locator("#plotted-0").is_visible()
    # black on white, whatever the system asks for
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.set_viewport_size({"width": 700, "height": 1000})  # what is left of A4
    assert page.evaluate("document.documentElement.scrollWidth") <= 700


def test_the_keyboard_reaches_what_scrolls(read, report):
    page = read(report, 375)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    assert page.locator(".scroll").evaluate_all("all => all.every((one) => one.tabIndex === 0)")
