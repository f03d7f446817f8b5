"""Text towers that are kept in the user's cache directory: a copy of the weights, and a record of what it copies.

A record is used only while the model's files are as they were, the software is the same, and the copy is undamaged.
Else the model is loaded in full, which compares its weights with those of the store, and the tower is kept again.
"""

import hashlib
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from pipeline import __version__
from pipeline.durable.atomic import write_atomically, write_text
from pipeline.errors import StoreError
from pipeline.machine import cache_folder
from pipeline.model.spec import ModelSource, local_files
from pipeline.model.text_tower.encoder import PlainTextEncoder
from pipeline.model.text_tower.plain_tokenizer import PlainTokenizer
from pipeline.model.text_tower.plain_tower import PlainTower
from pipeline.model.text_tower.shape import TextShape

MAX_KEPT = 4
"""Towers in the cache directory. The one that was used longest ago makes room for a new one."""

_FOLDER = "text-towers"
_FORMAT = 1
_MIN_FREE = 4  # times the size of the copy: a cache is no reason to fill a disk


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    software: dict[str, str]
    files: dict[str, list[int]]
    text_space: str
    shape: TextShape
    tensors: dict[str, tuple[int, ...]]
    """Their shapes, in the order of the copy."""

    crc32: int


class Keeper:
    """The place of one tower: that of a model, for the text space of a store."""

    def __init__(self, source: ModelSource, text_space: str) -> None:
        """Look at the model's files as they are now, before the model is loaded from them.

        Args:
            source: The model. Its adapter counts: name none if it does not change the text tower.
            text_space: What the store says of its text space.
        """
        named = source.absolute().model_copy(update={"image_size": None, "decoder": "pillow"})
        self._source, self._files = named, _files_of(named)
        key = hashlib.sha256(f"{named.model_dump_json()}{text_space}".encode()).hexdigest()[:32]
        self._record = cache_folder() / _FOLDER / f"{key}.json"
        self._copy = self._record.with_suffix(".npy")

    def read(self) -> PlainTextEncoder | None:
        """The tower; None if there is none to use."""
        if self._files is None:
            return None
        try:
            record = _Record.model_validate_json(self._record.read_bytes())
            if record.files != self._files or record.software != _software():
                return None
            flat = np.asarray(np.load(self._copy, mmap_mode="r"))
            with ThreadPoolExecutor(1) as pool:  # other threads run while a sum is computed
                crc32 = pool.submit(zlib.crc32, flat)
                tokenizer = PlainTokenizer(record.shape.context_length)
                if crc32.result() != record.crc32:
                    return None
            tower = PlainTower(_split(flat, record.tensors), record.shape)
        except Exception:  # missing, damaged, or written by other software: the model itself is there
            return None
        with suppress(OSError):
            os.utime(self._record)
        return PlainTextEncoder(tower, tokenizer, record.text_space)

    def keep(self, weights: Mapping[str, np.ndarray], plain: PlainTextEncoder) -> None:
        """Keep a tower. A home that cannot be written does without.

        Args:
            weights: All weights of the tower, by name.
            plain: The tower with these weights, after it was compared with open_clip's.
        """
        if self._files is None or _files_of(self._source) != self._files:
            return
        parts = [np.ascontiguousarray(weight) for weight in weights.values()]
        num_bytes, crc32 = sum(part.nbytes for part in parts), 0
        for part in parts:
            crc32 = zlib.crc32(part, crc32)
        record = _Record(
            software=_software(),
            files=self._files,
            text_space=plain.text_space,
            shape=plain.tower.shape,
            tensors={name: weight.shape for name, weight in weights.items()},
            crc32=crc32,
        )
        with suppress(OSError, StoreError):
            self._copy.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self._copy.parent).free < _MIN_FREE * num_bytes:
                return
            self._record.unlink(missing_ok=True)  # it describes another copy
            write_atomically(self._copy, lambda temporary: _save(temporary, parts))
            write_text(self._record, record.model_dump_json(indent=1) + "\n")
            _make_room(self._record.parent)


def _files_of(source: ModelSource) -> dict[str, list[int]] | None:
    """What changes if a file of the model is written: also if its size and its time are put back."""
    pretrained = source.pretrained and Path(source.pretrained)
    if pretrained and not pretrained.is_absolute() and pretrained.is_file():
        return None  # a file that looks like a tag
    files = local_files(source)
    try:
        return files and {path: [*known, *_inode_and_change(Path(path))] for path, known in files.items()}
    except OSError:
        return None


def _inode_and_change(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_ino, found.st_ctime_ns


def _software() -> dict[str, str]:
    return {"format": str(_FORMAT), "clipsieve": __version__, "open_clip": version("open_clip_torch")}


def _split(flat: np.ndarray, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes.values()])
    return {
        name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), np.split(flat, ends[:-1]), strict=True)
    }


def _save(path: Path, parts: Sequence[np.ndarray]) -> None:
    """Write the values of arrays, one after the other, as an array of one dimension."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (sum(part.size for part in parts),)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(part)


def _make_room(folder: Path) -> None:
    records = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for record in records[MAX_KEPT:]:
        record.unlink(missing_ok=True)
        record.with_suffix(".npy").unlink(missing_ok=True)
