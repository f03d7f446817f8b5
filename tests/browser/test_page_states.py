"""The page when things are missing: scripts, images, answers, the server; and its size."""

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect as wait

from query.service import page as page_package
from tests.kit.browse import LOST, RED, keys, search, shown, width_of
from tests.kit.service import running


def test_everything_works_without_scripts(visit, scenes):
    page = visit(java_script_enabled=False)
    page.fill("#text", RED)
    page.press("#text", "Enter")
    assert page.locator(".column").count() == 2
    page.click(".switch a:has-text('unpruned')")
    found = keys(page)
    assert len(found) == 24
    page.click("[rel=next]")
    assert not set(found) & set(keys(page))
    page.locator(".hit .like").first.click()
    assert page.locator(".chip").count() == 1
    for number in (0, 1):
        page.locator(".hit").nth(number).hover()
        page.locator(".pick input").nth(number).check()
    page.click("#selection .main")
    assert page.locator(".chip").count() == 2
    page.click("#filters summary")
    page.fill("#filters [name=where]", "width > height")
    page.click(".box .main")
    assert page.locator(".chip").count() == 2
    assert "where" in page.url
    page.goto(page.url.split("?")[0] + "?store=unpruned")
    page.click("#by-image summary")
    page.set_input_files("[name=image]", scenes / "first" / "images" / "00011.jpg")
    page.click("#by-image .main")
    assert keys(page)[0] == "images/00011.jpg"
    assert page.locator("[rel=next]").is_hidden()  # its address could not hold the image


def test_an_image_cannot_be_sent_in_an_address(visit, scenes):
    page = visit("?store=unpruned", java_script_enabled=False)
    page.click("#by-image summary")
    page.set_input_files("[name=image]", scenes / "first" / "images" / "00011.jpg")
    page.click(".box .main")
    assert "press “Search with this image”" in page.locator(".problem").inner_text()
    page.complaints.forget("422")


@pytest.mark.parametrize("scripts", [True, False])
def test_a_wrong_condition_is_explained_and_stays(visit, scripts):
    page = visit("?store=unpruned", java_script_enabled=scripts)
    page.fill("#text", RED)
    page.click("#filters summary")
    page.fill("#filters [name=where]", "widht > 3")
    page.press("#text", "Enter")
    page.wait_for_selector(".problem")
    assert "there is no column 'widht' (did you mean width?)" in page.locator(".problem").inner_text()
    assert page.input_value("#text") == RED
    assert page.locator("#filters [name=where]").first.input_value() == "widht > 3"
    assert page.locator("#filters").get_attribute("open") is not None
    page.complaints.forget("422")


def test_an_image_that_is_gone_gets_a_placeholder_and_a_note(visit):
    page = visit("?store=unpruned")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page.url + "&text=red&k=40")
    hit = page.locator(f"[data-key='{LOST}']")
    hit.scroll_into_view_if_needed()
    wait(hit.locator(".why")).to_have_text("This image cannot be shown")
    box = hit.locator(".picture").bounding_box()
    assert box["width"] > 100
    assert box["height"] > 100
    assert page.locator(".why").count() == 1
    assert len([url for url in asked if "/thumbs/7?" in url]) == 1


def test_a_thumbnail_that_the_server_could_not_send_is_asked_for_once_more(visit):
    page = visit("?store=unpruned&k=3")
    asked = Counter()

    def fail(route):
        asked[route.request.url] += 1
        place = list(asked).index(route.request.url)
        if asked[route.request.url] > 1 and place < 2:
            route.continue_()
        elif place == 0:
            route.abort()
        else:
            route.fulfill(status=429 if place == 1 else 503)

    page.route("**/thumbs/*", fail)
    search(page, "a small white circle")
    wait(page.locator(".why")).to_have_count(1)
    loaded = "() => [...document.querySelectorAll('.hit img')].filter((one) => one.naturalWidth > 0).length === 2"
    page.wait_for_function(loaded)
    why = page.locator(".hit:has(.why) img").get_attribute("src")
    assert list(asked)[2].endswith(why.removeprefix("."))
    assert list(asked.values()) == [2, 2, 2]
    for part in ("ERR_FAILED", "429", "503"):
        page.complaints.forget(part)


def test_a_file_that_is_too_large_is_refused_for_good(visit, tmp_path):
    page = visit("?store=unpruned")
    file = tmp_path / "large.jpg"
    file.write_bytes(bytes(20_000_001))
    page.click("#by-image summary")
    page.set_input_files("[name=image]", file)
    page.click("#by-image .main")
    page.wait_for_selector(".problem")
    assert "more than 20 MB, the limit of this service" in page.locator(".problem").inner_text()
    assert page.locator(".problem a").count() == 0
    page.complaints.forget("413")


def test_the_page_says_that_the_server_is_busy_and_tries_again(visit):
    page = visit("?store=unpruned")

    def refuse(route):
        problem = '{"title": "Too Many Requests", "status": 429, "detail": "there are too many requests."}'
        headers = {"Retry-After": "2"}
        route.fulfill(status=429, body=problem, headers=headers, content_type="application/problem+json")

    page.route("**/*fragment=1*", refuse)
    page.fill("#text", RED)
    page.press("#text", "Enter")
    page.wait_for_selector(".problem")
    assert "The server is busy" in page.locator(".problem").inner_text()
    assert "Try again in 2 s." in page.locator(".problem").inner_text()
    page.complaints.forget("429")
    page.unroute("**/*fragment=1*")
    page.click(".problem a")
    shown(page, "search")
    assert len(keys(page)) == 24


def test_a_slow_answer_is_announced_by_the_page(visit):
    page = visit("?store=unpruned")
    held = []
    page.route("**/*fragment=1*", lambda route: held.append(route))
    page.fill("#text", RED)
    page.press("#text", "Enter")
    page.wait_for_selector("main[aria-busy=true]")
    page.fill("#text", "typed meanwhile")
    held[0].continue_()
    shown(page, "search")
    assert page.input_value("#text") == "typed meanwhile"


def test_only_the_last_of_two_searches_is_shown(visit):
    page = visit("?store=unpruned")
    held = []
    page.route("**/*fragment=1*", lambda route: held.append(route))
    for text in ("a large red circle", "a small white circle"):
        page.fill("#text", text)
        page.press("#text", "Enter")
    wait(page.locator("main[aria-busy=true]")).to_have_count(1)
    for route in reversed(held):
        route.continue_()
    shown(page, "search")
    assert page.title().startswith("a small white circle")


def test_one_store_needs_no_switch_and_the_page_says_that_its_server_is_gone(visit, stores):
    with running(stores[0], flags=("--device", "cpu")) as own:
        page = visit(url=own.url)
        assert page.locator(".switch").count() == 0
        search(page, RED)
        assert len(keys(page)) == 24
        page.goto(f"{own.url}/?text=red&compare=1")
        assert "there is no second store" in page.locator(".problem").inner_text()
        page.complaints.forget("404")
        own.end()
        page.fill("#text", RED)
        page.press("#text", "Enter")
        wait(page.locator(".problem h1")).to_have_text("The server did not answer")
    assert page.input_value("#text") == RED
    assert page.locator(".problem a").get_attribute("href").startswith("?text=a+large+red+circle")
    assert page.locator("main[aria-busy]").count() == 0
    page.complaints.forget("ERR_CONNECTION_REFUSED")


@pytest.mark.parametrize("address", ["", "?text=red&store=unpruned", "?text=red&compare=1", "?text=red&where=no"])
def test_nothing_is_wider_than_the_window(visit, address):
    page = visit(address)
    if "where" in address:
        page.complaints.forget("422")
    else:
        page.click("#filters summary")
    for width in (320, 375, 768, 1280, 1600):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_long_name_leaves_room_for_the_close_button(visit):
    page = visit("?text=red&store=unpruned&k=3", width=375)
    name = page.locator(".hit .name").first
    for long in ("a_very_long_key_" * 20 + ".jpg", "a caption of many words " * 20):
        name.evaluate("(one, long) => { one.textContent = long; }", long)
        page.locator(".hit .open").first.click()
        box = page.locator("#viewer [aria-label=Close]").bounding_box()
        dialog = page.locator("#viewer").bounding_box()
        assert box["width"] >= 24
        assert box["x"] + box["width"] <= dialog["x"] + dialog["width"] <= 375
        assert page.locator("#viewer").evaluate("one => one.scrollWidth <= one.clientWidth")
        page.click("#viewer [aria-label=Close]")


def test_nothing_moves_when_images_arrive(visit):
    page = visit("?text=red&store=unpruned")
    shift = page.evaluate(
        """() => new Promise((resolve) => {
            let sum = 0;
            new PerformanceObserver((list) => { for (const one of list.getEntries()) sum += one.value; })
                .observe({ type: "layout-shift", buffered: true });
            setTimeout(() => resolve(sum), 300);
        })"""
    )
    assert shift < 0.01


def test_it_works_under_the_path_of_a_proxy(visit, site):
    with Proxy(site.url, "/some/where") as url:
        page = visit("?store=unpruned", url=url)
        search(page, RED)
        assert page.url.startswith(f"{url}/?text=")
        assert width_of(page.locator(".hit img").first) > 0
        page.locator(".hit .open").first.click()
        assert width_of(page.locator("#viewer img")) > 0
        assert page.locator("#viewer img").get_attribute("src").startswith(f"{url}/images/")
        page.close()  # before the proxy, so that no image is missed


def test_own_scripts_are_small():
    scripts = [path.stat().st_size for path in (Path(page_package.__file__).parent / "static").glob("*.js")]
    assert sum(scripts) <= 20_000


class Proxy:
    """A proxy that serves a service under a path and tells it nothing of that."""

    def __init__(self, target, prefix):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path = self.path.removeprefix(prefix)
                answer = httpx.get(target + path, headers={"Accept": self.headers["Accept"]})
                self.send_response(answer.status_code)
                for name in ("Content-Type", "Content-Security-Policy"):
                    self.send_header(name, answer.headers[name])
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 64  # a browser asks for many images at once

        self._server, self._prefix = Server(("127.0.0.1", 0), Handler), prefix

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}{self._prefix}"

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
