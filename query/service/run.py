"""Start the service, say where it is, and end it in good order."""

import asyncio
import contextlib
import functools
import gc
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from types import FrameType

import uvicorn

from pipeline.errors import ConfigError, on_one_line
from query.service.app import create_app
from query.service.guards.connections import PATIENCE_S, GuardedConnection
from query.service.service import Service
from query.service.settings import ServeSettings

BACKLOG = 2048
SPARE_S = 5
"""Seconds that requests under way get at the end, beyond those that any request may take."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(settings: ServeSettings, listener: socket.socket | None = None) -> None:
    """Serve until a signal ends it.

    Args:
        settings: What and how.
        listener: Where to listen, from `listen`. By default, where the settings say.

    Raises:
        ConfigError: If the address cannot be listened on.
        ClipsieveError: If a store or its model cannot be opened.
    """
    _log_to_stderr(settings.access_log)
    with listener or listen(settings.host, settings.port) as listener:
        server = _Server(settings, Service(settings))
        server.run(sockets=[listener])
    if server.failure is not None:
        raise server.failure


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens, before anything slow is done. Clients that come early wait until they are answered.

    Raises:
        ConfigError: If the host has no address, or the address cannot be listened on.
    """
    host = host.removeprefix("[").removesuffix("]")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise ConfigError(
            f"cannot find the address of --host {host!r}: {reason}; give one of this machine, such as 127.0.0.1, or "
            "0.0.0.0 for all of them"
        ) from error
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)  # localhost has both
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}; choose another --port (0 stands for any "
            "free one) or --host"
        ) from error
    return listener


class _Server(uvicorn.Server):
    """Answers at once, loads the models meanwhile, and tells load balancers before it ends."""

    def __init__(self, settings: ServeSettings, service: Service) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(service),
                log_config=None,
                access_log=settings.access_log,
                proxy_headers=True,
                forwarded_allow_ips=settings.trusted_proxies,
                server_header=False,
                timeout_graceful_shutdown=round(settings.timeout_s + SPARE_S),
                backlog=BACKLOG,
                ws="none",
                http=functools.partial(GuardedConnection, patience_s=min(PATIENCE_S, settings.timeout_s)),
            )
        )
        self._settings, self._service = settings, service
        self._loading: asyncio.Task[None] | None = None
        self.failure: Exception | None = None
        """Why it ended, if no signal ended it."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        _say(f"serving at {_address(self._settings, sockets[0])}")
        self._loading = asyncio.create_task(self._load())

    async def _load(self) -> None:
        try:
            await self._service.warm_up()
        except Exception as error:
            self.failure = error
            self._service.is_ending = self.should_exit = True
            return
        # what was loaded stays: to look at it again and again for garbage made one in a hundred searches 50 ms slower
        gc.collect()
        gc.freeze()
        for store in self._service.stores:
            print(f"{store.name}: {len(store.searcher)} images, {store.model}, policy {store.policy}", file=sys.stderr)
        if not self._settings.is_local and self._settings.token is None:
            print(
                "everyone who can reach this machine can search and see the images; a token restricts that",
                file=sys.stderr,
            )
        _say("ready")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # not uvicorn's own, which would raise the signal again at the end: what ends in good order has exit code 0
        for one in SIGNALS:
            signal.signal(one, signal.SIG_DFL)  # the next one ends the process at once
        self._service.is_ending = True
        delay_s = self._settings.drain_s if sig == signal.SIGTERM else 0
        asyncio.get_running_loop().call_later(delay_s, setattr, self, "should_exit", True)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but the handlers stay: a second signal also ends what waits for a thread at the very end."""
        for one in SIGNALS:
            signal.signal(one, self.handle_exit)
        yield


class _OneLine(logging.Formatter):
    """A line per message, also with the traceback of a fault."""

    def format(self, record: logging.LogRecord) -> str:
        return on_one_line(super().format(record))


def _log_to_stderr(access_log: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("clipsieve.serve").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it warns of what any client can send, without end
    logging.getLogger("uvicorn.access").setLevel(logging.INFO if access_log else logging.WARNING)


def _say(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # whoever read the address has gone
        print(line, flush=True)


def _address(settings: ServeSettings, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{settings.root_path}/"
