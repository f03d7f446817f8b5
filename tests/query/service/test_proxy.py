"""Behind a proxy: with a prefix, which the proxy takes off or leaves, and with its headers, which only it may set."""

import re

import httpx
import pytest

from tests.kit.raw_http import talk
from tests.kit.service import running

FORWARDED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}


@pytest.fixture(scope="module")
def prefixed(photos_store):
    with running(photos_store, flags=("--device", "cpu", "--root-path", "/my/photos/", "--access-log")) as found:
        yield found


def host_of(service):
    return "/".join(service.url.split("/")[:3])


def url_of_an_image(service):
    return httpx.post(f"{service.url}/knn-service", json={"text": "a dog"}, headers=FORWARDED).json()[0]["url"]


@pytest.mark.parametrize("left", ["", "/my/photos"])
def test_a_proxy_may_take_the_prefix_off_or_leave_it(prefixed, left):
    assert prefixed.url.endswith("/my/photos")
    answer = httpx.get(f"{host_of(prefixed)}{left}/search", params={"text": "a dog"})
    assert answer.status_code == 200
    for hit in answer.json()["hits"]:
        assert hit["image"].startswith(f"/my/photos/images/{hit['id']}?")
        assert hit["thumb"].startswith(f"/my/photos/thumbs/{hit['id']}?")
    assert httpx.get(f"{host_of(prefixed)}{left}/openapi.json").json()["servers"] == [{"url": "/my/photos"}]
    assert httpx.get(f"{host_of(prefixed)}{left}/my/search").status_code == 404
    assert httpx.get(f"{host_of(prefixed)}{left}/nothing").status_code == 404


def test_only_a_whole_part_of_the_path_is_the_prefix(prefixed):
    assert httpx.get(f"{host_of(prefixed)}/my/photosearch").status_code == 404
    assert httpx.get(f"{host_of(prefixed)}/my/photos/my/photos/search", params={"text": "x"}).status_code == 404


def test_headers_of_a_trusted_proxy_name_the_client_and_the_scheme(prefixed):
    assert url_of_an_image(prefixed).startswith("https://")
    assert "203.0.113.9" in prefixed.log.read_text()


def test_requests_are_logged_only_on_demand_and_in_one_line_each(prefixed, service):
    for one, is_logged in ((prefixed, True), (service, False)):
        httpx.get(f"{one.url}/search", params={"text": "ocelots"})
        talk(one.url, b"no HTTP\r\n\r\n")
        lines = one.log.read_text().splitlines()
        assert ("text=ocelots" in "".join(lines)) == is_logged
        assert all(re.match(r"20\d\d-|\w+: 12 images", line) for line in lines)


def test_proxy_headers_of_other_clients_are_ignored(photos_store):
    with running(photos_store, flags=("--device", "cpu", "--trusted-proxies", "10.0.0.1", "--access-log")) as service:
        assert url_of_an_image(service).startswith("http://")
        assert service.end() == 0
        assert "203.0.113.9" not in service.log.read_text()
        assert "127.0.0.1" in service.log.read_text()
