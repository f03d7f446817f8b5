"""The token, the login form and its cookie."""

import asyncio
import re
import time

import httpx
import pytest

from query.service.routes.login import WRONG_TOKEN_S
from query.service.sessions import SESSION_S, Sessions
from query.service.settings import ServeSettings
from tests.kit.service import running

TOKEN = "correct horse battery staple ä"
ORIGIN = "https://gallery.example"


@pytest.fixture(scope="module")
def closed(photos_store):
    """A service that asks for a token, under a prefix."""
    flags = ("--root-path", "/photos", "--allow-origin", ORIGIN, "--device", "cpu")
    with running(photos_store, flags=flags, environment={"CLIPSIEVE_SERVE_TOKEN": TOKEN}) as found:
        yield found


@pytest.fixture
def client(closed):
    """A browser, as a proxy shows the service to it: without the prefix."""
    with httpx.Client(base_url=closed.url.removesuffix("/photos"), headers={"accept": "text/html"}) as found:
        yield found


def bearer(token):
    return {"authorization": b"Bearer " + token.encode()}


def log_in(client, token=TOKEN, query="", **headers):
    return client.post(f"/login{query}", data={"token": token}, headers=headers)


def test_programs_need_the_token(client):
    accept = {"accept": "*/*"}
    for path in ("/info", "/search?text=dog", "/metrics", "/openapi.json", "/none", "/livez/", "/login/x", "//livez"):
        answer = client.get(path, headers=accept)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"
        assert client.get(path, headers={**accept, **bearer(TOKEN)}).status_code != 401
    assert client.get("/search?text=dog&k=1", headers=bearer(TOKEN)).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/login"])
def test_some_addresses_need_none(client, path):
    assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    "value",
    [b"Bearer", b"Bearer wrong", b"Basic " + TOKEN.encode(), TOKEN.encode(), b"", b"Bearer \xff\xfe", b"\xff"],
)
def test_a_wrong_token_always_gets_the_same_answer(client, value):
    answer = client.get("/info", headers={"authorization": value, "accept": "*/*"})
    missing = client.get("/info", headers={"accept": "*/*"})
    assert (answer.status_code, answer.text) == (401, missing.text)


def test_a_cookie_counts_beside_what_a_proxy_asks_for(client):
    cookie = log_in(client).headers["set-cookie"].split(";")[0]
    headers = {"cookie": cookie, "authorization": "Basic YTpi", "accept": "*/*"}
    assert client.get("/info", headers=headers).status_code == 200


def test_a_token_beside_another_one_does_not_count(client):
    twice = [("authorization", b"Bearer " + TOKEN.encode()), ("authorization", b"Bearer wrong"), ("accept", "*/*")]
    assert client.get("/info", headers=twice).status_code == 401


def test_browsers_are_sent_to_the_form_and_from_there_to_what_they_asked_for(client):
    answer = client.get("/?text=two+dogs&k=3")
    assert (answer.status_code, answer.headers["location"]) == (303, "login?text=two+dogs&k=3")
    form = client.get(f"/{answer.headers['location']}")
    assert form.status_code == 200
    assert 'action="login?text=two+dogs&amp;k=3"' in form.text
    assert 'href="static/style.css"' in form.text
    answer = log_in(client, query="?text=two+dogs&k=3")
    assert (answer.status_code, answer.headers["location"]) == (303, "./?text=two+dogs&k=3")
    assert client.get("/info", headers={"cookie": answer.headers["set-cookie"].split(";")[0]}).status_code == 200


def test_no_address_leads_to_another_site(client):
    for path in ("//evil.example", "/..//evil.example/x", "/%2f%2fevil.example", "/?https://evil.example"):
        location = client.get(path).headers["location"]
        assert re.fullmatch(r"(\.\./)*login(\?.*)?", location), location
    assert log_in(client, query="?//evil.example").headers["location"].startswith("./?")
    assert client.get("/images/3", headers={"cookie": "clipsieve_session=1.2"}).headers["location"] == "../login"


def test_the_cookie_is_for_this_service_alone(client):
    cookie = log_in(client).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert "Path=/photos" in cookie
    assert f"Max-Age={SESSION_S}" in cookie
    assert "Secure" not in cookie
    assert TOKEN not in cookie
    assert "Secure" in log_in(client, **{"x-forwarded-proto": "https"}).headers["set-cookie"]


def test_a_wrong_token_gets_the_form_again_after_a_while(client):
    for token in ("", "wrong", "\ud800".encode("utf-8", "replace").decode(), TOKEN + "x"):
        started = time.monotonic()
        answer = log_in(client, token)
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        assert 'role="alert"' in answer.text
        assert time.monotonic() - started >= WRONG_TOKEN_S


def test_logging_out_takes_the_cookie_away(client):
    jar = {"cookie": log_in(client).headers["set-cookie"].split(";")[0]}
    assert client.get("/info", headers={**jar, "accept": "*/*"}).status_code == 200
    answer = client.post("/logout", headers=jar)
    assert (answer.status_code, answer.headers["location"]) == (303, "login")
    assert "Max-Age=0" in answer.headers["set-cookie"]


def test_a_page_of_another_site_cannot_log_in(client):
    assert log_in(client, origin="https://evil.example").status_code == 403


def test_pages_of_a_named_origin_send_the_token_and_can_read_the_refusal(client):
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": "GET",
        "access-control-request-headers": "authorization",
    }
    assert client.options("/search", headers=asked).status_code == 200
    answer = client.get("/info", headers={"origin": ORIGIN, "accept": "*/*"})
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == ORIGIN


def test_cookies_end(monkeypatch):
    settings = ServeSettings(store="store", token=TOKEN)
    sessions = Sessions(settings)
    cookie = sessions.cookie()
    assert sessions.is_valid(cookie)
    ends, _, proof = cookie.partition(".")
    for wrong in ("", ".", f"{int(ends) + 1}.{proof}", f"{ends}.", f"{ends}.{proof}0", "ä.ä", proof):
        assert not sessions.is_valid(wrong)
    assert not Sessions(settings).is_valid(cookie), "another process made it"
    later = time.time() + SESSION_S + 1
    monkeypatch.setattr("query.service.sessions.time.time", lambda: later)
    assert not sessions.is_valid(cookie)


def test_without_a_token_there_is_nothing_to_log_in_to(service):
    answer = httpx.get(f"{service.url}/login?text=dog")
    assert (answer.status_code, answer.headers["location"]) == (303, "./?text=dog")
    assert "set-cookie" not in httpx.post(f"{service.url}/login", data={"token": TOKEN}).headers


def test_a_request_that_takes_too_long_is_ended(photos_store):
    flags = ("--timeout-s", "0.2", "--max-in-flight", "2", "--device", "cpu")
    with running(photos_store, flags=flags, environment={"CLIPSIEVE_SERVE_TOKEN": TOKEN}) as closed:
        answer = httpx.post(f"{closed.url}/login", data={"token": "wrong"})
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["content-type"] == "application/problem+json"
        answers = asyncio.run(_log_in_at_once(closed.url, 4))
        assert sorted(answer.status_code for answer in answers) == [429, 429, 503, 503]
        [busy, _] = [answer for answer in answers if answer.status_code == 429]
        assert int(busy.headers["retry-after"]) > 0
        metrics = httpx.get(f"{closed.url}/metrics", headers=bearer(TOKEN)).text
        assert 'clipsieve_rejected_total{reason="busy"} 2.0' in metrics
        assert 'clipsieve_rejected_total{reason="timeout"} 3.0' in metrics


async def _log_in_at_once(url, number):
    async with httpx.AsyncClient() as client:
        posts = [client.post(f"{url}/login", data={"token": "wrong"}) for _ in range(number)]
        return await asyncio.gather(*posts)
