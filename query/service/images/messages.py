"""Messages between the service and a decode process: two lengths, a header in JSON, then bytes. Nothing is pickled."""

import asyncio
import json
import struct
from typing import Any, BinaryIO

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "AVIF": "image/avif",
}
"""What browsers show, by Pillow's names of formats. SVG is not among them: it can hold a program."""

Message = tuple[dict[str, Any], bytes]

_LENGTHS = struct.Struct(">II")
_LONGEST_HEADER = 2**20
_LONGEST_DATA = 2**28


def head_of(header: dict[str, Any], num_bytes: int) -> bytes:
    """What stands before the bytes of a message."""
    text = json.dumps(header).encode()
    return _LENGTHS.pack(len(text), num_bytes) + text


def write_message(file: BinaryIO, header: dict[str, Any], data: bytes = b"") -> None:
    """Write one message."""
    file.write(head_of(header, len(data)))
    file.write(data)
    file.flush()


def read_message(file: BinaryIO) -> Message | None:
    """Read one message; None if the other side has gone."""
    lengths = file.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    header_length, num_bytes = _LENGTHS.unpack(lengths)
    text, data = file.read(header_length), file.read(num_bytes)
    return (json.loads(text), data) if len(data) == num_bytes and len(text) == header_length else None


async def receive_message(reader: asyncio.StreamReader) -> Message:
    """Receive one message from a process that an image may have taken over.

    Raises:
        EOFError: If the process ended.
        ValueError: If it is no message, or too long.
    """
    header_length, num_bytes = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
    if header_length > _LONGEST_HEADER or num_bytes > _LONGEST_DATA:
        raise ValueError(f"a message of {header_length} and {num_bytes} bytes")
    header = json.loads(await reader.readexactly(header_length))
    if not isinstance(header, dict):
        raise ValueError("a message whose header is not an object")
    return header, await reader.readexactly(num_bytes)
