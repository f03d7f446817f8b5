"""The service starts, says where it is, and ends in good order."""

import asyncio
import os
import signal
import socket
import sys
import threading
import time
import tomllib
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from indexer import build_index
from pipeline.errors import ConfigError
from query.cli.main import main
from query.cli.serve import MODULES
from query.demo import Demo
from query.image import image_encoder
from query.service.app import create_app
from query.service.run import listen
from query.service.service import Service
from query.service.settings import ServeSettings
from query.service.stores import ServedStore
from tests.kit.service import ENDING_S, running
from tests.kit.vector_store import unit_vectors, vector_store

SLOW = """
import asyncio, os
from query.service.stores import ServedStore
answer = ServedStore.ask
async def ask(self, request):
    print("asked", flush=True)
    await asyncio.sleep({seconds})
    return await answer(self, request)
ServedStore.ask = ask
"""


def errors_of(argv, capsys):
    code = main(argv)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return code, captured.err


def ask_in_background(service):
    """A thread that asks, and where it puts the answer, or the kind of the error."""
    found = []

    def ask():
        try:
            found.append(httpx.get(f"{service.url}/search", params={"text": "a dog", "k": 3}, timeout=ENDING_S))
        except httpx.HTTPError as error:
            found.append(type(error))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread, found


def test_a_port_in_use_is_said_before_anything_is_loaded(tmp_path, capsys):
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        code, error = errors_of(["serve", str(tmp_path / "no-store"), "--port", str(port)], capsys)
    assert code == 2
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use; choose another --port" in error


def test_hosts_that_cannot_be_listened_on_are_named(capsys):
    for host in ("no-such-host.invalid", "", "a" * 300, "\udcff"):
        with pytest.raises(ConfigError, match="cannot find the address of --host"):
            listen(host, 0)
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1, port 0"):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("host", "client"),
    [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("::1", "::1"), ("[::1]", "::1"), ("::", "127.0.0.1")],
)
def test_hosts_that_can_be_reached(host, client):
    if ":" in host:
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("this machine has no IPv6")
    with listen(host, 0) as listener, socket.create_connection((client, listener.getsockname()[1]), 5):
        pass


def test_stores_that_cannot_be_served_say_what_to_do(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    store = vector_store(tmp_path / "store", unit_vectors(300, 16), 100).root
    assert (
        "create one with `clipsieve embed`" in errors_of(["serve", str(tmp_path / "empty"), "--port", "0"], capsys)[1]
    )
    code, error = errors_of(["serve", str(store), "--port", "0"], capsys)
    assert (code, f"has no index; run `clipsieve index {store}`" in error) == (4, True)
    build_index(store, proof=False)
    code, error = errors_of(["serve", str(store), str(store), "--port", "0"], capsys)
    assert (code, "is given twice" in error) == (2, True)
    code, error = errors_of(["serve", str(store), "--port", "0", "--root-path", "/search"], capsys)
    assert (code, "/search is an address of the service itself" in error) == (2, True)
    code, error = errors_of(["serve", str(store), "--port", "0", "--trusted-proxies", "proxy.local"], capsys)
    assert (code, "'proxy.local' is not an IP address or network" in error) == (2, True)


def test_it_answers_while_the_model_loads_and_searches_wait_for_it(photos_store, monkeypatch):
    may_load, load = threading.Event(), ServedStore.warm_up

    def warm_up(store, images):
        assert may_load.wait(ENDING_S)
        load(store, images)

    async def ask():
        service = Service(ServeSettings(store=photos_store, device="cpu"))
        transport = httpx.ASGITransport(create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            loading = asyncio.create_task(service.warm_up())
            before = [await client.get(path) for path in ("/livez", "/readyz")]
            search = asyncio.create_task(client.get("/search", params={"text": "a dog"}))
            await asyncio.sleep(0)
            may_load.set()
            await loading
            return [*before, await client.get("/readyz"), await search]

    monkeypatch.setattr(ServedStore, "warm_up", warm_up)
    live, unready, ready, search = asyncio.run(ask())
    assert (live.status_code, unready.status_code, unready.headers["retry-after"]) == (200, 503, "1")
    assert (ready.status_code, search.status_code) == (200, 200)


def test_a_model_that_cannot_be_loaded_ends_the_service_with_one_line(tmp_path):
    store = vector_store(tmp_path / "store", unit_vectors(300, 192), 100).root  # it names weights that do not exist
    build_index(store, proof=False)
    with running(store, flags=("--device", "cpu"), is_ready=False) as service:
        assert service.process.wait(ENDING_S) == 4
        assert service.process.stdout.read() == ""
        [line] = service.log.read_text().splitlines()
        assert line.startswith("error: the store's images are in text space")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_requests_under_way_finish(photos_store, sign):
    with running(photos_store, flags=("--device", "cpu"), prelude=SLOW.format(seconds=1)) as service:
        thread, found = ask_in_background(service)
        assert service.process.stdout.readline() == "asked\n"
        service.process.send_signal(sign)
        assert service.process.wait(ENDING_S) == 0
        thread.join()
        assert [(answer.status_code, len(answer.json()["hits"])) for answer in found] == [(200, 3)]
        assert "Traceback" not in service.log.read_text()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{service.url}/livez")


def test_load_balancers_have_time_to_notice_the_end_and_no_process_is_left(photos_store):
    with running(photos_store, flags=("--device", "cpu", "--drain-s", "2")) as service:
        assert httpx.get(f"{service.url}/thumbs/0").status_code == 200  # starts a decode process
        children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
        assert children
        service.process.send_signal(signal.SIGTERM)
        statuses = {}
        while "/readyz" not in statuses or statuses["/readyz"] == 200:
            statuses["/readyz"] = httpx.get(f"{service.url}/readyz").status_code
        statuses["/search"] = httpx.get(f"{service.url}/search", params={"text": "a dog"}).status_code
        assert statuses == {"/readyz": 503, "/search": 200}
        assert service.process.wait(ENDING_S) == 0
    for child in map(int, children):
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def test_a_second_signal_ends_it_at_once(photos_store):
    with running(photos_store, flags=("--device", "cpu"), prelude=SLOW.format(seconds=1000)) as service:
        thread, found = ask_in_background(service)
        assert service.process.stdout.readline() == "asked\n"
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)  # two of a kind at once would be one
        assert service.process.poll() is None
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(ENDING_S) == -signal.SIGTERM
        thread.join()
        assert found == [httpx.RemoteProtocolError]
        assert "Traceback" not in service.log.read_text()


def test_a_missing_package_of_the_extra_is_named(tmp_path, monkeypatch, capsys):
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    extra = {name.split(">")[0].replace("-", "_") for name in project["optional-dependencies"]["serve"]}
    assert set(MODULES) == extra - {"uvloop"}
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)
        for argv in (["serve", str(tmp_path)], ["demo", "--serve", "--out", str(tmp_path / "demo")]):
            code, error = errors_of(argv, capsys)
            assert (code, error) == (
                2,
                f'error: {name} is not installed; run `pip install "clipsieve[serve]"`\n',
            )
        monkeypatch.undo()
    assert not (tmp_path / "demo").exists()


def test_the_demo_takes_its_port_first(tmp_path, capsys):
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = str(other.getsockname()[1])
        code, error = errors_of(["demo", "--serve", "--port", port, "--out", str(tmp_path / "demo")], capsys)
    assert (code, "Address already in use" in error) == (2, True)
    assert not (tmp_path / "demo").exists()


def test_the_demo_ends_with_the_unpruned_store_beside_the_adapted_one(tmp_path, monkeypatch):
    stores, served = [tmp_path / name for name in ("none", "pruned", "adapted")], []
    demo = Demo({"conditions": []}, [("a dog", None)], [], tmp_path / "sheet.png", stores, "cpu")
    monkeypatch.setattr("query.demo.run_demo", lambda settings, on_tick: demo)
    monkeypatch.setattr("query.cli.console.show", lambda *_: None)
    monkeypatch.setattr("query.service.run.serve", lambda settings, listener: served.append((settings, listener)))
    assert main(["demo", "--serve", "--port", "0"]) == 0
    [(settings, listener)] = served
    assert (settings.store, settings.store2, settings.is_local) == (stores[0], stores[2], True)
    assert listener.fileno() == -1  # closed at the end


@pytest.mark.parametrize("warm_images", [True, False])
def test_the_image_tower_is_loaded_at_the_start_or_with_the_first_image(photos_store, monkeypatch, warm_images):
    loaded = []
    monkeypatch.setattr("query.image.image_encoder", lambda *args: loaded.append(args) or image_encoder(*args))
    service = Service(ServeSettings(store=photos_store, device="cpu", warm_images=warm_images))
    asyncio.run(service.warm_up())
    assert len(loaded) == warm_images


def test_a_short_token_is_refused_without_showing_it(photos_store, monkeypatch, capsys):
    monkeypatch.setenv("CLIPSIEVE_SERVE_TOKEN", "s3cret-token")
    code, error = errors_of(["serve", str(photos_store), "--port", "0"], capsys)
    assert (code, "has 12 characters" in error, "s3cret" in error) == (2, True, False)
