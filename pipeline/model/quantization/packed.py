"""A calibration as the bytes of its file. Without torch: the driver of a run and readers of a store need only these."""

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.numpy import load

from pipeline.errors import InputError, first_line

UNPACKING_ERRORS = (SafetensorError, ValueError, KeyError, TypeError)
"""What the functions here raise if the bytes are no calibration."""

_MADE_OF = "made_of"


class MadeOf(BaseModel):
    """What a calibration was measured on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """As a user names it."""

    image_weights_sha256: str
    adapter: str | None = None
    """SHA-256 of the adapter merged into the tower."""

    height: int
    width: int
    policy: str
    """Name of the policy that pruned the tower meanwhile."""

    num_images: int
    cosine: float | None = None
    """Mean cosine of embeddings in int8 to those in float, on some of the images."""

    num_float_blocks: int = 0
    """The first blocks of the tower, which stay in float because the cosine was too low otherwise."""

    def as_metadata(self) -> dict[str, str]:
        """The metadata of the file."""
        return {_MADE_OF: self.model_dump_json()}


def made_of(data: bytes) -> MadeOf:
    """What the calibration in a file was measured on."""
    length = int.from_bytes(data[:8], "little")
    return MadeOf.model_validate_json(json.loads(data[8 : 8 + length])["__metadata__"][_MADE_OF])


def calibration_sha256(data: bytes) -> str:
    """Hash (hex) of the ranges in a file: of all that changes an embedding, so not of what they were measured on."""
    digest = hashlib.sha256()
    for name, array in sorted(load(data).items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def read_packed(path: Path) -> bytes:
    """Read the file of a calibration.

    Raises:
        InputError: If it cannot be read, or is no calibration.
    """
    try:
        data = path.read_bytes()
        made_of(data)
        calibration_sha256(data)
    except (OSError, *UNPACKING_ERRORS) as error:
        reason = (error.strerror or first_line(error)) if isinstance(error, OSError) else "it is none, or is damaged"
        raise InputError(
            f"calibration {path} cannot be read: {reason}; give the calibration.safetensors of a store"
        ) from error
    return data
