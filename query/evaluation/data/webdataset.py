"""Folders in CLIP_benchmark's layout of WebDatasets, for captions and for classes.

    FOLDER/dataset_type.txt                        `retrieval` for captions; without it, classes
    FOLDER/classnames.txt                          names of the classes, one per line; the first is class 0
    FOLDER/zeroshot_classification_templates.txt   prompts with {c}, one per line
    FOLDER/test/nshards.txt                        number of tars
    FOLDER/test/0.tar, 1.tar, ...                  s0000000.jpg with s0000000.txt or s0000000.cls, and so on

A `.txt` holds captions, one per line; a `.cls` holds the number of a class. `clip_benchmark_export_wds` writes this.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.errors import InputError
from pipeline.source.access.naming import path_of
from pipeline.source.entry import ImageEntry, Source, SourceFile
from pipeline.source.formats.lines import read_lines
from pipeline.source.formats.text import as_text, decode_text
from pipeline.source.left_out import Kind, ReadNotes
from pipeline.source.listing import Listing, list_source
from pipeline.source.reading import read_file
from query.evaluation.data.found import Captioned, Classified
from query.evaluation.data.templates import read_templates

TYPE, NAMES, TEMPLATES = "dataset_type.txt", "classnames.txt", "zeroshot_classification_templates.txt"
_CAPTIONS, _CLASSES = "retrieval", "classification"
_LABEL = ".cls"


def read_webdataset(folder: Path, split: str, templates: Path | None) -> Captioned | Classified:
    """The images of one split, with captions or classes. Reads every tar from front to back.

    Args:
        folder: The folder.
        split: Name of the folder in it with the tars.
        templates: Prompts of classes, instead of those in the folder.

    Raises:
        InputError: If the split or one of its tars is missing, a tar is damaged, a text or label belongs to no image,
            or a label is missing or no number of a class.
    """
    listing = _listing(folder, split)
    if _type_of(folder) == _CAPTIONS:
        return _captioned(folder, listing)
    own = folder / TEMPLATES
    return _classified(folder, listing, read_templates(templates or (own if own.exists() else None)))


def _listing(folder: Path, split: str) -> Listing:
    place = folder / split
    if not any(place.rglob("*.tar")):
        names = sorted({path.parent.name for path in folder.glob("*/*.tar")})
        raise InputError(
            f"webdataset {folder} has no split {split!r}; its folders with tars: {', '.join(names) or 'none'}"
        )
    listing = list_source(Source(location=str(place), format="webdataset"))
    _refuse_missing_tars(place, len(listing.files))
    return listing


def _refuse_missing_tars(place: Path, num_tars: int) -> None:
    path = place / "nshards.txt"
    if not path.exists():
        return
    lines = read_lines(path, "number of tars", "a text file with one number")
    text = next((line.strip() for _, line in lines), "")
    if text == str(num_tars) and all((place / f"{number}.tar").exists() for number in range(num_tars)):
        return
    raise InputError(
        f"{path}: expected the number of the tars 0.tar, 1.tar, ... in {place}, found {text[:20]!r} and {num_tars} "
        "tars; add the missing tars, or correct the number"
    )


def _type_of(folder: Path) -> str:
    path = folder / TYPE
    found = [line.strip().lower() for _, line in read_lines(path, "type", "a text file")] if path.exists() else []
    kind = found[0] if found else _CLASSES
    if kind not in (_CAPTIONS, _CLASSES):
        raise InputError(f"{path}: expected `{_CAPTIONS}` or `{_CLASSES}`, found {kind[:40]!r}; pass another data set")
    return kind


def _captioned(folder: Path, listing: Listing) -> Captioned:
    entries, captions = [], {}
    for file in listing.files:
        for entry in _images(file, listing.source):
            entries.append(replace(entry, caption=None))
            texts = [line.strip() for line in (entry.caption or "").splitlines()]
            captions[entry.key] = [text for text in texts if text]
    entries.sort(key=lambda entry: entry.key)
    return Captioned(location=as_text(folder.absolute()), entries=entries, captions=captions)


def _classified(folder: Path, listing: Listing, templates: list[str]) -> Classified:
    names = _names(folder / NAMES)
    labelled = []
    for file in listing.files:
        images = list(_images(file, listing.source))
        labels = _labels(file, len(names))
        groups = [_group(entry.key.removeprefix(f"{file.key}/")) for entry in images]
        lone = labels.keys() - set(groups)
        if lone:
            raise InputError(f"{file.uri}: {min(lone)}{_LABEL} belongs to no image; add the image, or remove the label")
        for entry, group in zip(images, groups, strict=True):
            if group not in labels:
                raise InputError(
                    f"{file.uri}: image {entry.key!r} has no {group}{_LABEL}; add it, or write `{_CAPTIONS}` into "
                    f"{folder / TYPE} if these are captions"
                )
            labelled.append((replace(entry, caption=None), labels[group]))
    labelled.sort(key=lambda pair: pair[0].key)
    return Classified(
        location=as_text(folder.absolute()),
        entries=[entry for entry, _ in labelled],
        labels=[label for _, label in labelled],
        names=names,
        templates=templates,
    )


def _images(file: SourceFile, source: Source) -> Iterator[ImageEntry]:
    """The images of a tar without their bytes, which are read again by URI."""
    notes = ReadNotes()
    try:
        yield from (replace(entry, data=None) for entry in read_file(file, source, 0, 0, notes))
    except InputError as error:
        raise InputError(str(error).partition(", then run the same command")[0]) from error  # that is for `embed`
    lone = notes.left_out.names.get(Kind.TEXT_WITHOUT_IMAGE)
    if lone:
        raise InputError(f"{file.uri}: the text {lone[0]!r} belongs to no image; add the image, or remove the text")


def _labels(file: SourceFile, num_classes: int) -> dict[str, int]:
    """The class of each sample of a tar that has one, by the names of samples. The tar has been read before."""
    found = {}
    with tarfile.open(path_of(file.uri), "r:") as archive:
        for member in archive:
            if not (member.isfile() and member.name.endswith(_LABEL)):
                continue
            text = decode_text(archive.extractfile(member).read()).strip()
            if not text.isdecimal() or int(text) >= num_classes:
                raise InputError(
                    f"{file.uri}: {as_text(member.name)} holds {text[:20]!r}; expected the number of a class, 0 to "
                    f"{num_classes - 1}"
                )
            found[_group(as_text(member.name))] = int(text)
    return found


def _group(name: str) -> str:
    """A member's name up to the first dot, which names its sample."""
    folder, slash, file = name.rpartition("/")
    return folder + slash + file.partition(".")[0]


def _names(path: Path) -> list[str]:
    """Names of classes by number: a blank line would shift them."""
    names = []
    for number, line in read_lines(path, "names of classes", "a WebDataset folder with one name a line in it"):
        if number != len(names) + 1:
            raise InputError(f"{path}, line {len(names) + 1} is blank; the line of a name is the number of its class")
        names.append(line.strip())
    if not names:
        raise InputError(f"{path} is empty; expected one name of a class a line")
    return names
