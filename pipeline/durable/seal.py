"""Files that carry a hash of their own bytes, so that a flipped one is noticed: the small files of a store.

A seal is `sha256:` and 64 digits near the end of the file: the hash of all its bytes, with zeros for the digits.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline.durable.atomic import write_atomically

_MARK = b"sha256:"
_DIGITS = b"0" * 64
UNSEALED = (_MARK + _DIGITS).decode()
"""What stands in the place of a seal until `sealed` fills it in."""


def sealed(data: bytes) -> bytes:
    """The bytes of a file with its seal filled in; the last `UNSEALED` in them is its place."""
    head, _, tail = data.rpartition(UNSEALED.encode())
    return head + _MARK + hashlib.sha256(data).hexdigest().encode() + tail


def check_seal(data: bytes) -> None:
    """Refuse bytes that are not as they were sealed.

    Raises:
        ValueError: If any of them changed, or there is no seal.
    """
    head, mark, tail = data.rpartition(_MARK)
    if hashlib.sha256(head + mark + _DIGITS + tail[64:]).hexdigest().encode() != tail[:64]:
        raise ValueError("its bytes are not those that were sealed")


def write_sealed_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as indented JSON with a seal, atomically."""
    text = json.dumps({**value, "seal": UNSEALED}, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_bytes(sealed(text.encode())))


def unsealed_json(data: bytes) -> dict[str, Any]:
    """The value of sealed JSON.

    Raises:
        ValueError: If its seal is missing or broken.
    """
    check_seal(data)
    value = json.loads(data)
    del value["seal"]
    return value


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes (hex)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
