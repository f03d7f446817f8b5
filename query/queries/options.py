"""Which answers of a search count."""

import math
from dataclasses import dataclass

from pipeline.errors import ConfigError

DUPLICATE_COSINE = 0.9
"""Images at least so similar are near-duplicates, unless another threshold is given.

With the reference model of the tests, pruned or not, it finds 94 % and more of the copies of photographs at native size
that were saved again as JPEG at quality 60, halved, cropped by 5 % or mirrored, and a quarter of those in grey. Of the
images of Flickr8k, at 224 x 224, it finds 78 to 91 % of the copies at quality 60, but 4 to 10 % of the halved ones. Of
7,000 of them, fewer than 1 % have a different one that similar; of 113,802 images, 5 %. Pictures that are drawn alike
need a higher threshold. `tests/drills/search/duplicates.py` fixed it with training images: 0.89, rounded to a tenth.
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
