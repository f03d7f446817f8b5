"""Which images of a source int8 is calibrated on: a seeded choice that reads little, the same in every run.

Images of folders and lists are chosen by a hash of their keys. Tars and Parquet files are chosen by a hash of theirs;
of each, a run of images is read: from the start of a tar, and from the start of row groups, which are chosen, too. So
the choice depends neither on the order in which a source is listed nor on the number of workers.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import islice

from pipeline.errors import InputError, SourceUnavailable
from pipeline.source.access.credentials import KEYRING
from pipeline.source.entry import ImageEntry, Source, SourceFile
from pipeline.source.listing import Listing
from pipeline.source.reading import read_file

CALIBRATION_IMAGES = 256
"""With 32 images the cosine to float varies by 0.002 with the choice. More than 128 gain nothing; the rest make up for
images that are damaged, blank or alike."""

_SPREAD = 16
"""Over how many files or row groups the sample is spread, if there are as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Images of a source, or the files to read them from. Small, however large the source is."""

    source: Source
    entries: tuple[ImageEntry, ...] = ()
    files: tuple[SourceFile, ...] = ()
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What is known of the credentials of their URLs; see `access.credentials`."""

    def images(self) -> Iterator[ImageEntry]:
        """Yield at most `CALIBRATION_IMAGES` images, those of files with their bytes.

        A file that is damaged yields those before the damage. What the run itself will say of it is left to the run.

        Raises:
            SourceUnavailable: If a server does not respond.
        """
        if not self.files:
            return iter(self.entries)
        read = _images_of_tars if self.source.format == "webdataset" else _images_of_parquet
        return islice(read(self.files, self.source), CALIBRATION_IMAGES)


def choose_sample(listing: Listing) -> Sample:
    """Choose what to calibrate on. Goes through the listing, and reads no image."""
    if listing.entries is not None:
        entries = tuple(nsmallest(CALIBRATION_IMAGES, listing, key=lambda entry: _rank(entry.key)))
        credentials = KEYRING.of(entry.uri for entry in entries) if KEYRING else {}
        return Sample(source=listing.source, entries=entries, credentials=credentials)
    files = sorted((file for file in listing.files if file.num_rows != 0), key=lambda file: _rank(file.key))
    files = files[:CALIBRATION_IMAGES]
    credentials = KEYRING.of(file.uri for file in files) if KEYRING else {}
    return Sample(source=listing.source, files=tuple(files), credentials=credentials)


def _rank(name: str) -> bytes:
    return hashlib.sha256(f"calibration {name}".encode(errors="surrogatepass")).digest()


def _images_of_tars(files: Sequence[SourceFile], source: Source) -> Iterator[ImageEntry]:
    num_images = _in_a_row(len(files))
    for file in files:
        with _damage_left_to_the_run():
            yield from islice(read_file(file, source, 0, 0), num_images)


def _images_of_parquet(files: Sequence[SourceFile], source: Source) -> Iterator[ImageEntry]:
    from pipeline.source.formats.parquet import read_row_groups  # brings pyarrow

    groups: list[tuple[SourceFile, range]] = []
    for number, file in enumerate(files):
        if number >= _SPREAD and sum(len(rows) for _, rows in groups) >= CALIBRATION_IMAGES:
            break
        with _damage_left_to_the_run():
            groups += ((file, rows) for rows in read_row_groups(file.uri))
    groups.sort(key=lambda group: _rank(f"{group[0].key}/{group[1].start}"))
    num_images = _in_a_row(len(groups))
    for file, rows in groups:
        with _damage_left_to_the_run():
            yield from read_file(file, source, rows.start, rows[:num_images].stop)


def _in_a_row(num_pieces: int) -> int:
    """How many images to read of each file or row group."""
    return -(-CALIBRATION_IMAGES // min(max(1, num_pieces), _SPREAD))


@contextmanager
def _damage_left_to_the_run() -> Iterator[None]:
    try:
        yield
    except SourceUnavailable:
        raise
    except (InputError, OSError):
        pass
