"""Start the service, say where it is, and end it in good order."""

import asyncio
import functools
import signal
import socket
import sys
from types import FrameType

import uvicorn

from pipeline.errors import ConfigError
from query.service.app import create_app
from query.service.guards.connections import PATIENCE_S, GuardedConnection
from query.service.service import Service
from query.service.settings import ServeSettings

BACKLOG = 2048
DRAIN_LIMIT_S = 30
"""Seconds that requests under way have to finish."""


def serve(settings: ServeSettings) -> None:
    """Serve until a signal ends it.

    Raises:
        ConfigError: If the address cannot be listened on.
        ClipsieveError: If a store or its model cannot be opened.
    """
    listener = _listener(settings)
    try:
        service = Service(settings)
        for store in service.stores:
            store.warm_up()
        service.is_warm = True
        _Server(settings, service).run(sockets=[listener])
    finally:
        listener.close()


class _Server(uvicorn.Server):
    """Tells load balancers before it ends: a signal first makes `/readyz` say 503."""

    def __init__(self, settings: ServeSettings, service: Service) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(service),
                log_config=None,
                access_log=settings.access_log,
                root_path=settings.root_path,
                proxy_headers=True,
                forwarded_allow_ips=settings.trusted_proxies,
                server_header=False,
                timeout_graceful_shutdown=DRAIN_LIMIT_S,
                backlog=BACKLOG,
                ws="none",
                http=functools.partial(GuardedConnection, patience_s=min(PATIENCE_S, settings.timeout_s)),
            )
        )
        self._settings, self._service = settings, service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for store in self._service.stores:
            print(f"{store.name}: {len(store.searcher)} images, {store.model}, policy {store.policy}", file=sys.stderr)
        if not self._settings.is_local and self._settings.token is None:
            print(
                "everyone who reaches this machine can search and see the images; --token restricts it", file=sys.stderr
            )
        print(f"serving at {_address(self._settings, sockets)}", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        is_second = self._service.is_ending
        self._service.is_ending = True
        if self._settings.drain_s and sig == signal.SIGTERM and not is_second:
            asyncio.get_running_loop().call_later(self._settings.drain_s, super().handle_exit, sig, frame)
        else:
            super().handle_exit(sig, frame)


def _listener(settings: ServeSettings) -> socket.socket:
    """A socket at the address, before anything slow is done."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {settings.host}, port {settings.port}: {error.strerror or error}; choose another --port "
            "(0 stands for any free one) or --host"
        ) from error
    return listener


def _address(settings: ServeSettings, sockets: list[socket.socket] | None) -> str:
    port = sockets[0].getsockname()[1] if sockets else settings.port
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{port}{settings.root_path}/"
