"""Classes as folders: one folder of images for each class."""

import os
from pathlib import Path

from pipeline.errors import InputError
from pipeline.source.entry import Source
from pipeline.source.formats.folder import image_rules, list_images
from pipeline.source.formats.text import as_text
from query.evaluation.data.found import Classified
from query.evaluation.data.templates import read_templates


def read_class_folders(folder: Path, templates: Path | None) -> Classified:
    """The images of a folder of class folders. A class is called like its folder, with spaces for underscores.

    Images in subfolders of a class belong to it. Images beside the class folders are left out and counted.

    Raises:
        InputError: If a folder cannot be read, there are no class folders, or one of them has no images.
    """
    prompts = read_templates(templates)
    entries, _ = list_images(folder)
    classes = _class_folders(folder)
    if not classes:
        raise InputError(f"{folder} has no class folders; expected one folder of images for each class")
    class_of = {entry.key: entry.key.partition("/")[0] for entry in entries if "/" in entry.key}
    empty = next((name for name in classes if name not in set(class_of.values())), None)
    if empty:
        raise InputError(
            f"class folder {folder / empty} has no images; add some, or remove it (links to folders are not followed)"
        )
    number_of = {name: number for number, name in enumerate(classes)}
    return Classified(
        location=as_text(folder.absolute()),
        entries=[entry for entry in entries if entry.key in class_of],
        labels=[number_of[name] for name in class_of.values()],
        names=[name.replace("_", " ") for name in classes],
        templates=prompts,
        counts={"num_without_class": len(entries) - len(class_of)},
    )


def _class_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without those that no listing of images enters."""
    rules = image_rules(Source(location=os.fspath(folder), format="folder"))
    with os.scandir(folder) as found:
        names = [as_text(item.name) for item in found if item.is_dir()]
    return sorted(name for name in names if not rules.passes_over(name, name))
