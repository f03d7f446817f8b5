"""calibration.safetensors: how the encoder of a store in int8 rounds activations. Its hash is in the encoder spec."""

from pathlib import Path

from pipeline.durable.atomic import write_atomically
from pipeline.errors import StoreError, first_line
from pipeline.model.quantization.packed import UNPACKING_ERRORS, calibration_sha256
from pipeline.model.spec import ClaimedSpec, EncoderSpec


def write_calibration(path: Path, data: bytes) -> None:
    """Write the file, whole or not at all.

    Raises:
        StoreError: If it cannot be written.
    """
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def read_stored_calibration(path: Path, spec: EncoderSpec | ClaimedSpec) -> bytes | None:
    """Read the file at its place in a store, whose encoder is `spec`. None if that encoder needs none.

    Raises:
        StoreError: If it is missing, damaged or another one.
    """
    if spec.calibration is None:
        return None
    fault = calibration_fault(path, spec)
    if fault:
        raise StoreError(fault)
    return path.read_bytes()


def calibration_fault(path: Path, spec: EncoderSpec | ClaimedSpec) -> str | None:
    """What is wrong with the file that an encoder names, and how to put it back. None if it is right, or not needed."""
    if spec.calibration is None:
        return None
    try:
        found = calibration_sha256(path.read_bytes())
        if found == spec.calibration:
            return None
        what = f"has the hash {found[:16]}, but the store was made with {spec.calibration[:16]}"
    except FileNotFoundError:
        what = "is missing"
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
    except UNPACKING_ERRORS as error:
        what = f"is damaged ({first_line(error)})"
    return (
        f"{path} {what}; restore it from a backup, or run the same embed command with --calibration and a copy of it "
        f"from another store (hash {spec.calibration[:16]})"
    )
