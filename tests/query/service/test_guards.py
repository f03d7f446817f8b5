"""Who may ask: hosts, origins, and the headers of every response."""

import asyncio
import os
import re
from types import SimpleNamespace

import httpx
import pytest

from query.service.app import create_app
from query.service.metrics import Metrics
from query.service.sessions import Sessions
from query.service.settings import ServeSettings
from tests.kit.raw_http import statuses, talk
from tests.kit.service import running

ORIGIN = "https://gallery.example"
CLIENT = httpx.Client()
ODD_METHODS = ("GET", "POST", "PUT", "DELETE", "PROPFIND", "MKCOL", "PURGE", "SUBSCRIBE")


@pytest.fixture(scope="module")
def named(photos_store):
    """A service with a host name and a named origin."""
    flags = ("--host-name", "search.example", "--allow-origin", ORIGIN, "--device", "cpu")
    with running(photos_store, flags=flags) as found:
        yield found


def get(service, path="/livez", method="GET", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return CLIENT.request(method, f"{service.url}{path}", headers=headers)


@pytest.mark.parametrize("path", ["/livez", "/info", "/search?text=dog&k=1", "/none", "/search?k=0"])
def test_every_response_has_the_security_headers(service, path):
    headers = get(service, path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "*" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1", "[::1]:8000", "192.168.1.7:80"])
def test_this_machine_and_addresses_are_hosts(service, host):
    assert get(service, host=host).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "localhost.", "search.example"]
)
def test_other_names_are_misdirected(service, host):
    answer = get(service, host=host)
    assert answer.status_code == 421
    assert answer.headers["content-type"] == "application/problem+json"
    assert "--host-name" in answer.json()["detail"]
    assert "content-security-policy" in answer.headers


def test_a_named_host_is_served(named):
    assert get(named, host="search.example:443").status_code == 200
    assert get(named, host="other.example").status_code == 421


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"Host:\r\n",
        b"Host: localhost\r\nHost: localhost\r\n",
        b"Host: localhost\r\nHost: evil.example\r\n",
        b"Host: localhost/\r\n",
        b"Host: localhost:port\r\n",
        b"Host: user@localhost\r\n",
        b"Host: [::1\r\n",
        b"Host: loc\xc3\xa4lhost\r\n",
    ],
)
def test_a_host_that_is_none_is_a_bad_request(service, lines):
    assert statuses(talk(service.url, b"GET /livez HTTP/1.1\r\n" + lines + b"Connection: close\r\n\r\n")) == [400]


def test_pages_of_other_sites_may_not_ask(service):
    own = service.url
    other_port = f"http://127.0.0.1:{int(own.rpartition(':')[2]) - 1}"
    assert get(service, origin=own).status_code == 200
    assert get(service, origin=own.replace("http:", "https:")).status_code == 200, "a proxy speaks https for it"
    for origin in (ORIGIN, "null", other_port, f"{own}.evil.example", "http://", "", "file://127.0.0.1"):
        assert get(service, origin=origin).status_code == 403, origin
        assert get(service, "/search?text=dog", method="POST", origin=origin).status_code == 403, origin
        assert get(service, "/search", method="OPTIONS", origin=origin).status_code == 403, origin


def test_images_and_scripts_of_other_sites_may_not_ask(service):
    foreign = {"sec_fetch_site": "cross-site"}
    assert get(service, **foreign, sec_fetch_mode="no-cors").status_code == 403
    assert get(service, **foreign).status_code == 403
    assert get(service, **foreign, sec_fetch_mode="navigate").status_code == 200, "links to here are fine"
    assert get(service, sec_fetch_site="same-origin", sec_fetch_mode="no-cors").status_code == 200


def test_a_default_port_is_no_other_origin(named):
    assert get(named, host="search.example:443", origin="https://search.example").status_code == 200
    assert get(named, host="search.example", origin="https://search.example:444").status_code == 403


def test_a_named_origin_may_ask_and_read(named):
    answer = get(named, "/search?text=dog&k=1", origin=ORIGIN, sec_fetch_site="cross-site", sec_fetch_mode="cors")
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert "origin" in answer.headers["vary"].lower()
    assert get(named, origin="https://gallery.example.evil.example").status_code == 403
    assert "access-control-allow-origin" not in get(named).headers


def test_a_named_origin_gets_its_preflight(named):
    asked = {"origin": ORIGIN, "access_control_request_method": "POST"}
    answer = get(named, "/search", method="OPTIONS", **asked, access_control_request_headers="authorization")
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    assert get(named, "/search", method="OPTIONS", **{**asked, "origin": "null"}).status_code == 403


def test_labels_of_metrics_do_not_grow_with_what_is_asked(service):
    for number in range(200):
        get(service, f"/{os.urandom(4).hex()}/{number}", method=ODD_METHODS[number % 8])
    text = get(service, "/metrics").text
    labels = re.findall(r'duration_seconds_count\{method="(.+?)",route="(.+?)",status="(\d+)"\}', text)
    assert {"none"} <= {route for _, route, _ in labels} <= {"none", "/livez", "/info", "/search", "/metrics", "/login"}
    assert {"other"} <= {method for method, _, _ in labels} <= {"GET", "POST", "OPTIONS", "HEAD", "other"}
    assert "clipsieve_inflight_requests 1.0" in text, "the one for the metrics"
    get(service, host="evil.example")
    assert 'clipsieve_rejected_total{reason="host"}' in get(service, "/metrics").text


@pytest.mark.parametrize("path", ["/search/", "/static/page.js/", "//search"])
def test_only_the_address_itself_is_answered(service, path):
    assert get(service, path).status_code == 404


def test_a_wrong_method_gets_those_of_the_address(service):
    for path, methods in {"/livez": "GET", "/login": "GET, POST"}.items():
        answer = get(service, path, method="DELETE")
        assert (answer.status_code, answer.headers["allow"]) == (405, methods)


def test_an_unexpected_exception_is_logged_once_and_not_told(caplog):
    settings = ServeSettings(store="store")
    broken = SimpleNamespace(settings=settings, metrics=Metrics(), sessions=Sessions(settings), stores=None)
    answer = asyncio.run(_ask(create_app(broken), "/info"))
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "title": "Internal Server Error",
        "status": 500,
        "detail": "the service failed; its log says why",
    }
    assert "content-security-policy" in answer.headers
    [record] = [record for record in caplog.records if record.exc_info]
    assert record.name == "clipsieve.serve"
    assert 'route="/info",status="500"' in broken.metrics.text().decode()


async def _ask(app, path):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        return await client.get(path)
