"""Clients that ask one request after another over raw connections, and how long each answer took."""

import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

RECEIVED = 1 << 16


@dataclass(frozen=True, slots=True)
class Load:
    """What the answers to some requests took."""

    ms: np.ndarray
    """Milliseconds of each request."""
    seconds: float
    """Of all together."""
    client_cpu_s: float
    """Seconds that this process was running."""

    @property
    def facts(self) -> dict[str, float]:
        """Latency and throughput, and which part of a core the clients took."""
        return {
            **{f"p{percent}_ms": round(float(np.percentile(self.ms, percent)), 3) for percent in (50, 99)},
            "per_second": round(len(self.ms) / self.seconds, 2),
            "client_cores": round(self.client_cpu_s / self.seconds, 3),
        }


def load(port: int, requests: Sequence[bytes], num_clients: int) -> Load:
    """Ask each request once: each client takes the next one as soon as it has an answer."""
    waiting, ms = iter(enumerate(requests)), np.empty(len(requests))

    def ask_all() -> None:
        with Client(port) as client:
            for place, request in waiting:  # taking the next one is atomic
                asked = time.perf_counter()
                client.ask(request)
                ms[place] = 1000 * (time.perf_counter() - asked)

    started, cpu_started = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(num_clients) as threads:
        for done in [threads.submit(ask_all) for _ in range(num_clients)]:
            done.result()
    return Load(ms, time.perf_counter() - started, time.process_time() - cpu_started)


class Client:
    """One client of a server on this machine. Its connection stays open unless the server closes it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self.num_connections = 0

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        if self._socket:
            self._socket.close()

    def ask(self, request: bytes) -> bytes:
        """The body of the answer, which must have the status 200 and a Content-Length."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=120)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.num_connections += 1
        self._socket.sendall(request)
        received = bytearray()
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._more()
        status, *headers = bytes(received[:end]).lower().split(b"\r\n")
        fields = dict(header.split(b": ", 1) for header in headers)
        size = end + 4 + int(fields[b"content-length"])
        while len(received) < size:
            received += self._more()
        if fields.get(b"connection") == b"close":
            self._socket.close()
            self._socket = None
        body = bytes(received[end + 4 :])
        if status.split()[1] != b"200":
            raise SystemExit(f"the server on port {self._port} answered {status.decode()}: {body[:500]!r}")
        return body

    def _more(self) -> bytes:
        received = self._socket.recv(RECEIVED)
        if not received:
            raise SystemExit(f"the server on port {self._port} closed a connection before the end of its answer")
        return received
