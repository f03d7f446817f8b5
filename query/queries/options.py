"""Which answers of a search count."""

import math
from dataclasses import dataclass

from pipeline.errors import ConfigError

DUPLICATE_COSINE = 0.9
"""Images at least so similar are near-duplicates, unless another threshold is given.

Of copies of Flickr8k's test images, so many are found with the reference model of the tests, unpruned: 91 % of those
saved again as JPEG at quality 60, 87 % of those cropped by 5 %, all mirrored ones, but 10 % of those at half size (of
224 pixels) and 1 % of those in grey. Of 7,000 photographs 0.7 % have a different one that similar, of 113,802 images
5 %. `tests/drills/search/duplicates.py` measures it, and fixed the threshold with the training images: 0.89, rounded to
a tenth. Pictures that are drawn alike need a higher one.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Which answers count."""

    k: int = 10
    """Number of hits; there are fewer if the store has no more."""
    where: tuple[str, ...] = ()
    """Only images for which all of this holds; see `query.filters`."""
    unique: float | bool = False
    """Leave out near-duplicates: hits whose cosine to a better one is at least this, or `DUPLICATE_COSINE` if True."""
    min_relevance: float | None = None
    """Leave out hits with less relevance; see `query.hits.relevance`."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: If one is out of range.
        """
        if self.k < 1:
            raise ConfigError(f"k = {self.k}: expected at least 1")
        if self.unique is not False and not 0 < self.unique <= 1:
            raise ConfigError(f"unique = {self.unique}: expected a cosine above 0, and 1 at most")
        if self.min_relevance is not None and not math.isfinite(self.min_relevance):
            raise ConfigError(f"min_relevance = {self.min_relevance}: expected a finite number")

    @property
    def duplicate_cosine(self) -> float | None:
        """From which cosine on a hit is left out; None if near-duplicates stay."""
        return None if self.unique is False else DUPLICATE_COSINE if self.unique is True else self.unique
