"""Prompts of classes: templates with {c} in the place of the class, one per line."""

from pathlib import Path

from pipeline.errors import InputError
from pipeline.source.formats.lines import read_lines

PLACE = "{c}"
DEFAULT_TEMPLATES = ["a photo of a {c}."]
"""Where none are given."""


def read_templates(path: Path | None) -> list[str]:
    """The templates of a file, or the default ones.

    Raises:
        InputError: If the file cannot be read, has no templates, or a line has no {c}.
    """
    if path is None:
        return DEFAULT_TEMPLATES
    found = []
    for number, line in read_lines(path, "templates file", "a text file with one template a line"):
        if PLACE not in line:
            raise InputError(
                f"templates file {path}, line {number}: expected {PLACE} in the place of the class, found {line[:60]!r}"
            )
        found.append(line.strip())
    if not found:
        raise InputError(f"templates file {path} is empty; expected one template a line, with {PLACE} in each")
    return found


def prompts_of(name: str, templates: list[str]) -> list[str]:
    """The prompts of a class."""
    return [template.replace(PLACE, name) for template in templates]
