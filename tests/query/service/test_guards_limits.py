"""How much and how slowly one may ask, by hand on sockets: well-behaved clients cannot."""

import asyncio
import json
import socket
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial

import httpx
import pytest
import uvicorn

from query.service.guards.connections import MOST_CONNECTIONS, MOST_HEAD_BYTES, MOST_PIPELINED, GuardedConnection
from query.service.guards.limits import few_at_a_time
from query.service.metrics import Metrics
from tests.kit.raw_http import connect, read_to_end, statuses, talk
from tests.kit.service import running

HEAD = b"Host: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
MULTIPART = b"Host: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
PART = b'--x\r\nContent-Disposition: form-data; name="token"; filename="a"\r\n\r\n'
MOST = 200_000
LARGE = 30_000_000


@pytest.fixture(scope="module")
def strict(photos_store):
    """A service with short limits."""
    flags = ("--timeout-s", "1", "--max-in-flight", "2", "--max-upload", str(MOST), "--device", "cpu")
    with running(photos_store, flags=flags) as found:
        yield found


def post(head, length):
    return b"POST /login HTTP/1.1\r\n" + head + b"Content-Length: %d\r\n\r\n" % length


def chunked(head, chunks):
    yield b"POST /login HTTP/1.1\r\n" + head + b"Transfer-Encoding: chunked\r\n\r\n"
    for chunk in chunks:
        yield b"%x\r\n%s\r\n" % (len(chunk), chunk)
    yield b"0\r\n\r\n"


def problem_of(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"content-security-policy" in head
    return json.loads(body)


@pytest.fixture(autouse=True)
def still_answers(strict):
    yield
    assert httpx.get(f"{strict.url}/search?text=dog&k=1").status_code == 200


def test_a_body_that_says_it_is_too_large_is_refused_unread(strict):
    answer = talk(strict.url, post(HEAD, MOST + 1))
    assert statuses(answer) == [413]
    assert "200000 bytes" in problem_of(answer)["detail"]
    assert statuses(talk(strict.url, post(HEAD, 10**30))) in ([400], [413])


def test_the_bytes_are_counted(strict):
    for head in (HEAD, MULTIPART):
        first = PART if head is MULTIPART else b"token="
        answer = talk(strict.url, chunked(head, [first, *[b"x" * 50_000] * 5]))
        assert statuses(answer) == [413]
        assert b"connection: close" in answer
    whole = chunked(HEAD, [b"token=x", b"&other=" + b"x" * (MOST - 100)])
    with closing(connect(strict.url)) as connection:
        connection.sendall(b"".join(whole))
        assert statuses(connection.recv(65536)) == [303], "there is no token, so this leads to the page"


def test_clients_that_write_first_and_read_then_see_the_refusal(strict):
    # closing with unread bytes would reset the connection, and the client might never see the answer
    with closing(connect(strict.url)) as connection:
        connection.sendall(post(HEAD, MOST + 150_000))
        for _ in range(7):
            connection.sendall(b"x" * 50_000)
            time.sleep(0.05)
        assert statuses(read_to_end(connection)) == [413]


def test_bytes_after_the_declared_length_are_not_part_of_the_body(strict):
    answer = talk(strict.url, post(HEAD, 7) + b"token=x" + b"y" * 300_000)
    assert statuses(answer)[0] in (303, 400)
    assert set(statuses(answer)) <= {303, 400, 431}


def test_a_body_that_ends_early_is_no_failure(strict):
    with closing(connect(strict.url)) as connection:
        connection.sendall(post(HEAD, 1000) + b"token=")
        connection.shutdown(socket.SHUT_WR)
        assert set(statuses(read_to_end(connection))) <= {400, 408}
    with closing(connect(strict.url)) as connection:
        connection.sendall(post(MULTIPART, 1000) + PART)
    assert 'status="5' not in httpx.get(f"{strict.url}/metrics").text


@pytest.mark.parametrize("pause", [0.05, 1.5])
def test_a_slow_body_is_given_up(strict, pause):
    parts = [post(HEAD, 100), *[b"x"] * int(1.5 / pause)]
    answer = talk(strict.url, parts, pause)
    assert statuses(answer) == [408]
    assert "1 s" in problem_of(answer)["detail"]


@pytest.mark.parametrize(
    "parts",
    [
        [b""],
        [b"GET /livez HTTP/1.1\r\n", *[b"X: y\r\n"] * 60],
        [b"\r\n"] * 60,
        [b"GET /livez HTTP/1.1\r\nX: ", *[b"y"] * 60],
        [b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", *[b"\r\n"] * 80],
    ],
    ids=["nothing", "headers without end", "empty lines", "one long header", "after a request"],
)
def test_a_slow_head_is_given_up(strict, parts):
    assert set(statuses(talk(strict.url, parts, 0.05))) <= {200, 408}  # `talk` fails if the server does not close


def test_the_slow_rest_of_a_body_that_was_answered_is_given_up(strict):
    parts = [post(HEAD, 900).replace(b"/login", b"/livez"), *[b"x"] * 80]
    assert statuses(talk(strict.url, parts, 0.05)) == [405]


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /search?text=" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 1_000_000,
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n" + b"X-Y: z\r\n" * 20_000 + b"\r\n",
    ],
    ids=["address", "one header", "many headers"],
)
def test_a_large_head_is_refused(strict, request_):
    answer = talk(strict.url, request_)
    if answer:  # the server may have closed the connection while the client wrote
        assert statuses(answer) == [431]
        assert str(MOST_HEAD_BYTES) in problem_of(answer)["detail"]


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n"],
)
def test_what_is_not_http_is_a_bad_request(strict, garbage):
    answer = talk(strict.url, garbage)
    assert statuses(answer) == [400]
    assert problem_of(answer)["status"] == 400
    assert "Invalid HTTP" not in strict.log.read_text(), "any client could fill the log with it"


def test_a_request_before_garbage_is_still_answered(strict):
    good = b"GET /search?text=dog&k=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = talk(strict.url, good + b"\x00garbage\r\n\r\n")
    assert statuses(answer) == [200]
    assert b'"num_images":12' in answer


def test_few_requests_may_be_sent_ahead(strict):
    one = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert statuses(talk(strict.url, one * MOST_PIPELINED + last)) == [200] * (MOST_PIPELINED + 1)
    answers = statuses(talk(strict.url, one * 5000))
    assert set(answers) == {200}
    assert len(answers) <= MOST_PIPELINED + 1


def with_large_answers(patience_s=1.0):
    """The port of a server whose every answer is larger than what sockets keep."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(LARGE)})

    return served(app, patience_s)


@contextmanager
def served(app, patience_s=1.0):
    """The port of a server of an application, with our connections."""
    protocol = partial(GuardedConnection, patience_s=patience_s)
    server = uvicorn.Server(uvicorn.Config(app, http=protocol, lifespan="off", log_config=None))
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def test_a_client_that_reads_slowly_gets_everything():
    with with_large_answers() as port, closing(socket.create_connection(("127.0.0.1", port))) as connection:
        connection.settimeout(20)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        found = 0
        while part := connection.recv(LARGE // 100):
            found += len(part)
            time.sleep(0.02)  # less than the patience, but all of it together is more
        assert found > LARGE


def test_a_client_that_does_not_read_is_given_up():
    with with_large_answers() as port, closing(socket.create_connection(("127.0.0.1", port))) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(3)
        assert len(read_to_end(connection)) < LARGE


def test_there_are_only_so_many_connections(strict):
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(connect(strict.url))) for _ in range(MOST_CONNECTIONS + 20)]
        with suppress(ConnectionError):
            opened[-1].sendall(b"GET /livez")
        assert read_to_end(opened[-1]) == b"", "not 408, which its slow head would get"


@contextmanager
def slow_bodies(service, path, count):
    """Some requests whose bodies do not come."""
    head = b"POST %s HTTP/1.1\r\n%sContent-Length: 10\r\n\r\n" % (path.encode(), MULTIPART)
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(closing(connect(service.url))).sendall(head)
        time.sleep(0.3)
        yield


def test_more_requests_at_a_time_are_refused():
    async def app(scope, receive, send):
        assert scope["path"] != "/search" or await asyncio.sleep(3600)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def ask(guard, path):
        found = []

        async def send(message):
            found.append(message)

        scope = {"type": "http", "method": "GET", "path": path, "root_path": ""}
        await guard(scope, None, send)
        return found[0]["status"], dict(found[0]["headers"]).get(b"retry-after")

    async def ask_many():
        guard = few_at_a_time(app, 2, Metrics())
        running = [asyncio.create_task(ask(guard, "/search")) for _ in range(2)]
        await asyncio.sleep(0)
        paths = ("/images/1", "/livez", "/readyz", "/metrics", "/static/page.js")
        found = [await ask(guard, path) for path in paths]
        for one in running:
            one.cancel()
        await asyncio.wait(running)
        return found, await ask(guard, "/images/1")

    (refused, *others), afterwards = asyncio.run(ask_many())
    assert refused == (429, b"1")
    assert others == [(200, None)] * 4, "probes are answered however busy the service is"
    assert afterwards == (200, None)


def test_bodies_that_do_not_come_leave_places_to_other_requests(strict):
    with slow_bodies(strict, "/search", 5):
        assert httpx.get(f"{strict.url}/search?text=dog&k=1").status_code == 200
        assert httpx.post(f"{strict.url}/search", json={"text": "dog"}).status_code == 429


def test_strangers_take_no_place_from_others(strict):
    with slow_bodies(strict, "/login", 5):
        assert httpx.post(f"{strict.url}/login", data={"token": "x"}).status_code == 429
        assert httpx.post(f"{strict.url}/search", json={"text": "dog"}).status_code == 200


@pytest.mark.parametrize("trailers", [b"a: b\r\n" * 30_000, b"a" * 200_000], ids=["many", "long"])
def test_large_trailers_are_refused(strict, trailers):
    head = b"POST /search HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    head += b"Host: localhost\r\n\r\n1\r\n{\r\n0\r\n"
    for parts in (head + trailers, [head, trailers]):  # the server may read all at once
        assert statuses(talk(strict.url, parts)) == [431]


def test_trailers_are_no_headers():
    async def app(scope, receive, send):
        while (await receive())["more_body"]:
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d headers" % len(scope["headers"])})

    head = b"POST / HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    with served(app) as port:
        answer = talk(f"http://127.0.0.1:{port}", head + b"1\r\nx\r\n0\r\nAuthorization: Bearer x\r\n\r\n")
    assert b"2 headers" in answer


def test_what_nobody_reads_is_bounded(monkeypatch):
    monkeypatch.setattr("query.service.guards.connections.MOST_UNREAD_BYTES", 2 * LARGE)
    with with_large_answers(patience_s=20) as port, ExitStack() as stack:
        opened = [stack.enter_context(closing(socket.create_connection(("127.0.0.1", port)))) for _ in range(4)]
        for connection in opened:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            time.sleep(0.2)
        assert len(read_to_end(opened[-1])) < LARGE < len(read_to_end(opened[0]))
