"""What was measured on this machine, kept in its cache folder: one JSON file per kind of measurement."""

from contextlib import suppress
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.durable.atomic import write_text
from pipeline.errors import StoreError
from pipeline.machine import cache_folder

M = TypeVar("M", bound=BaseModel)


class _Cache(BaseModel, Generic[M]):
    found: dict[str, M] = {}


def read_measured(name: str, kind: type[M]) -> dict[str, M]:
    """What earlier runs measured, by key; nothing if the file is missing, damaged or of another version.

    Args:
        name: The file's name in the cache folder.
        kind: The type of its values.
    """
    try:
        return _Cache[kind].model_validate_json((cache_folder() / name).read_bytes()).found
    except (OSError, ValidationError):
        return {}


def remember(name: str, key: str, found: BaseModel) -> None:
    """Add a measurement to a file of the cache folder. A home that cannot be written does without."""
    cache = _Cache[type(found)](found=read_measured(name, type(found)) | {key: found})
    with suppress(OSError, StoreError):
        cache_folder().mkdir(parents=True, exist_ok=True)
        write_text(cache_folder() / name, cache.model_dump_json(indent=1) + "\n")
