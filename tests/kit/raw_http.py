"""HTTP by hand, for what no well-behaved client sends."""

import re
import socket
import time
from collections.abc import Iterable
from contextlib import closing
from urllib.parse import urlsplit

PATIENCE_S = 20.0


def connect(url: str) -> socket.socket:
    """A connection to the server of an address."""
    place = urlsplit(url)
    return socket.create_connection((place.hostname, place.port), timeout=PATIENCE_S)


def talk(url: str, parts: bytes | Iterable[bytes], pause_s: float = 0.0) -> bytes:
    """Send the parts, with pauses between them, and return all that comes until the server closes the connection."""
    with closing(connect(url)) as connection:
        try:
            for part in [parts] if isinstance(parts, bytes) else parts:
                connection.sendall(part)
                time.sleep(pause_s)
        except OSError:
            pass  # closed by the server, which may have said why
        return read_to_end(connection)


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    found = bytearray()
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionError:
        pass
    return bytes(found)


def statuses(answer: bytes) -> list[int]:
    """The statuses of the responses in an answer."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]
