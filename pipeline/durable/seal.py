"""Seals: the small files of a store carry a hash of their own bytes, so any flipped byte is detected.

A seal is `sha256:` and 64 hex digits near the end of the file: the hash of all its bytes, with zeros as the digits.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline.durable.atomic import write_atomically

_MARK = b"sha256:"
_DIGITS = b"0" * 64
UNSEALED = (_MARK + _DIGITS).decode()
"""Placeholder for a seal until `sealed` fills it in."""


def sealed(data: bytes) -> bytes:
    """Fill in the seal of a file's bytes. It replaces the last `UNSEALED` in them."""
    head, _, tail = data.rpartition(UNSEALED.encode())
    return head + _MARK + hashlib.sha256(data).hexdigest().encode() + tail


def check_seal(data: bytes) -> None:
    """Check that bytes have not changed since they were sealed.

    Raises:
        ValueError: If any byte changed, or there is no seal.
    """
    head, mark, tail = data.rpartition(_MARK)
    if hashlib.sha256(head + mark + _DIGITS + tail[64:]).hexdigest().encode() != tail[:64]:
        raise ValueError("its bytes do not match its seal")


def write_sealed_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as indented JSON with a seal, atomically."""
    text = json.dumps({**value, "seal": UNSEALED}, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_bytes(sealed(text.encode())))


def unsealed_json(data: bytes) -> dict[str, Any]:
    """Parse sealed JSON, without its seal.

    Raises:
        ValueError: If the seal is missing or does not match.
    """
    check_seal(data)
    value = json.loads(data)
    del value["seal"]
    return value


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes (hex)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
