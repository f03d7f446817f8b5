"""Captions of images from a file, TSV or Karpathy's JSON, and the folders and drawn scenes that have them."""

from itertools import groupby
from pathlib import Path

from pipeline.errors import InputError
from pipeline.scenes.collection import SPLITS, write_collection
from pipeline.source.entry import ImageEntry
from pipeline.source.formats.captions import sorted_captions
from pipeline.source.formats.folder import list_images
from pipeline.source.formats.lines import read_lines
from pipeline.source.formats.text import as_text
from query.evaluation.data.found import Captioned
from query.evaluation.data.karpathy import read_karpathy


def read_folder(folder: Path, captions: Path | None, split: str) -> Captioned:
    """The images of a folder with the captions of a file; without one, images alone.

    Raises:
        InputError: If either cannot be read, or they do not match.
    """
    entries, _ = list_images(folder)
    texts: dict[str, list[str]] = {}
    if captions:
        entries, texts = read_captions_file(captions, split, entries, str(folder))
    return Captioned(location=as_text(folder.absolute()), entries=entries, captions=texts)


def read_captions_file(
    path: Path, split: str, entries: list[ImageEntry], folder: str
) -> tuple[list[ImageEntry], dict[str, list[str]]]:
    """The images that a captions file is about, and their captions by key, in the order of the file.

    A TSV is about all images, also those without captions; Karpathy's JSON is about the images of the split.

    Args:
        path: The file.
        split: Split of Karpathy's JSON.
        entries: The images, sorted by key.
        folder: The folder that keys are relative to.

    Raises:
        InputError: If the file cannot be read, or names an image that is not among the entries.
    """
    if path.suffix.lower() == ".json":
        return read_karpathy(path, split, entries)
    try:
        pairs = sorted_captions(entries, folder, path)
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"captions file {path}{_line_of_first(path, str(error))}: {error}") from error
    return entries, {key: [text for _, text in same] for key, same in groupby(pairs, lambda pair: pair[0])}


def _line_of_first(path: Path, message: str) -> str:
    """The line of the key that a message names as the first wrong one, for messages."""
    keys = ((number, line.partition("\t")[0]) for number, line in read_lines(path, "captions file", "a TSV file"))
    found = next((number for number, key in keys if f"first {key!r}" in message), None)
    return f", line {found}" if found else ""


def draw_scenes(num_scenes: int, split: str, folder: Path) -> Captioned:
    """Drawn scenes with one caption each: the first ones of the collection that `clipsieve demo` shows.

    They are drawn into a subfolder, unless they are there already.

    Raises:
        InputError: If the collection has no such split.
    """
    if split not in SPLITS:
        raise InputError(f"scenes have no split {split!r}; they have {', '.join(SPLITS)}")
    out = folder / f"scenes-{split}-{num_scenes}"
    captions = out / "captions.tsv"
    # the captions are written last, line by line
    if not captions.exists() or captions.read_bytes().count(b"\n") != num_scenes:
        write_collection(out, num_scenes, split)
    found = read_folder(out, captions, split)
    return Captioned(location=f"scenes/{split}", entries=found.entries, captions=found.captions)
