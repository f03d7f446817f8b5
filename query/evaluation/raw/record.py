"""Write and read `sweep.json`."""

import json

from pipeline.durable.atomic import write_text
from pipeline.errors import StoreError
from query.evaluation.raw.folder import SweepFolder
from query.evaluation.record import SCHEMA_VERSION, SweepRecord


def write_record(folder: SweepFolder, record: SweepRecord) -> None:
    """Write the record of a sweep whole or not at all.

    Raises:
        StoreError: If it cannot be written.
    """
    write_text(folder.record, record.model_dump_json(indent=2) + "\n")


def read_record(folder: SweepFolder) -> SweepRecord:
    """Read the record of a sweep.

    Raises:
        StoreError: If there is none, or it is damaged or of another schema version. The message names the file.
    """
    path = folder.record
    advice = "run `clipsieve sweep` with its grid into this folder again; what is complete is kept"
    try:
        found = json.loads(path.read_bytes())
        version = found["schema_version"]
        if version == SCHEMA_VERSION:
            return SweepRecord.model_validate(found)
    except FileNotFoundError as error:
        raise StoreError(f"{path} is missing, so {folder.root} holds no sweep; name the --out of one") from error
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}; fix its permissions") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged; {advice}") from error
    raise StoreError(
        f"{path} has schema version {version}, this version of clipsieve reads {SCHEMA_VERSION}; read it with the "
        "version that wrote it, or run the sweep into another folder"
    )
