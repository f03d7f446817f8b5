"""Common ground of the service drills: where and when they ran, a client that costs little, and percentiles."""

import json
import os
import platform
import socket
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import faiss
import numpy as np

from pipeline.machine import cpu_name, num_cores


def surroundings() -> dict[str, object]:
    """The command, date, hardware and versions."""
    packages = ("fastapi", "starlette", "uvicorn", "httptools", "uvloop", "numpy", "pyarrow")
    return {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_name(),
        "cores": num_cores(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "faiss": faiss.__version__,
        **{name: version(name) for name in packages},
    }


def write(results: dict[str, object], path: Path | None) -> None:
    """Print the results, and write them to a file if there is one."""
    text = json.dumps(results, indent=2)
    print(text, flush=True)
    if path:
        path.write_text(text + "\n", encoding="utf-8")


def percentiles(ms: np.ndarray) -> dict[str, float]:
    return {f"p{percent}": round(float(np.percentile(ms, percent)), 3) for percent in (50, 90, 99)}


class Client:
    """One connection that stays open. It sends bytes and looks only for the end of the answer."""

    def __init__(self, url: str) -> None:
        self._place = urlsplit(url)
        self.host = self._place.netloc
        self._connect()

    def request(self, method: str, path: str, body: bytes = b"", media_type: str = "application/json") -> bytes:
        """A request as it is sent."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}"]
        if body:
            lines += [f"Content-Type: {media_type}", f"Content-Length: {len(body)}"]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def send(self, request: bytes) -> tuple[int, bytes]:
        """The status and the body of the answer."""
        self._socket.sendall(request)
        found = self._socket.recv(1 << 16)
        while (end := found.find(b"\r\n\r\n")) < 0:
            found += self._received()
        head = found[:end].lower()
        start = head.index(b"content-length:") + 15
        length = int(head[start : (head + b"\r").index(b"\r", start)])
        while len(found) < end + 4 + length:
            found += self._received()
        return int(head[9:12]), found[end + 4 :]

    def _received(self) -> bytes:
        part = self._socket.recv(1 << 16)
        if not part:
            raise ConnectionError("the server closed the connection")
        return part

    def _connect(self) -> None:
        self._socket = socket.create_connection((self._place.hostname, self._place.port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def reconnect(self) -> None:
        """After an error."""
        self.close()
        self._connect()

    def close(self) -> None:
        self._socket.close()
