"""What a source holds, whatever its format: images with captions, or images of classes.

Shapes: N images.
"""

from dataclasses import dataclass, field

from pipeline.source.entry import ImageEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioned:
    """Images, and the captions of those that have some."""

    location: str
    entries: list[ImageEntry]
    """Sorted by key [N]."""
    captions: dict[str, list[str]]
    """By key, in the order of the source."""
    counts: dict[str, int] = field(default_factory=dict)
    """What the source holds besides, by why it is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """Images that each belong to one class."""

    location: str
    entries: list[ImageEntry]
    """Sorted by key [N]."""
    labels: list[int]
    """The class of each image, as its place among the names [N]."""
    names: list[str]
    templates: list[str]
    counts: dict[str, int] = field(default_factory=dict)
    """What the source holds besides, by why it is left out."""
