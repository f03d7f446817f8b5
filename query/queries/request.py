"""What is asked of a store."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import InputError
from query.queries.options import Options
from query.queries.terms import check_templates, parse_terms

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One query, and which answers count. If it has several parts, the query is the sum of their unit vectors."""

    text: str | None = None
    """A plain text, or a weighted sum; see `query.queries.terms`."""
    templates: tuple[str, ...] = ()
    """Sentences with {} for the text; their vectors are averaged."""
    images: "tuple[str | Path | bytes | Image, ...]" = ()
    """Images to look for: paths or URLs, bytes of a file, or opened images."""
    like: tuple[int | str, ...] = ()
    """Ids (int) or keys (str) of images of the store to look for. They are not among the answers."""
    vector: np.ndarray | None = field(default=None, compare=False)
    """A vector [E] to look for, of any length."""
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: If a template has no place for the text.
            InputError: If nothing is asked, or the text is empty or a sum that cannot be read.
        """
        if self.text is None and not self.images and not self.like and self.vector is None:
            raise InputError("nothing is asked; give a text, an image, an image of the store, or a vector")
        check_templates(self.templates)
        if self.text is not None:
            parse_terms(self.text)

    @property
    def is_text(self) -> bool:
        """Whether the query is a text, and nothing else."""
        return self.text is not None and not self.images and not self.like and self.vector is None

    @property
    def num_sentences(self) -> int:
        """Texts to embed: those of the weighted sum, in each template."""
        return 0 if self.text is None else len(parse_terms(self.text)) * max(1, len(self.templates))

    @property
    def title(self) -> str:
        """What is asked, for people."""
        parts = [] if self.text is None else [self.text]
        parts += [f"image {image}" if isinstance(image, str | Path) else "an image" for image in self.images]
        parts += [f"like {one}" for one in self.like]
        return " + ".join(parts if self.vector is None else [*parts, "a vector"])
