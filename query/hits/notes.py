"""What hits say about the question as a whole: whether anything matches, why there are few, what was left out."""

from collections.abc import Sequence

from query.hits.hit import Hit
from query.hits.relevance import WEAK
from query.queries.options import Options

WEAK_BELOW = "weak matches below"
"""What stands between hits that match and those that are only the best of the rest."""


def num_strong(hits: Sequence[Hit]) -> int:
    """How many of the hits, from the best on, are no weak matches. All of them if relevance cannot be told."""
    strong = [number for number, hit in enumerate(hits, 1) if hit.relevance is None or hit.relevance >= WEAK]
    return max(strong, default=0)


def notes_of(hits: Sequence[Hit], options: Options) -> list[str]:
    """Sentences for whoever looks at the hits; most have none."""
    notes = []
    if hits and num_strong(hits) == 0:
        notes.append(
            f"all matches are weak: the relevance of the best hit is {hits[0].relevance:.2f}, and chance leads as far "
            f"as {WEAK:g}"
        )
    if len(hits) < options.k:
        found = f"{len(hits)} of {options.k} hits: no other image" if hits else "no hits: no image"
        notes.append(f"{found} {_wanted(options)}")
    left_out = sum(hit.duplicates for hit in hits)
    if left_out:
        images = "near-duplicate of a hit is" if left_out == 1 else "near-duplicates of hits are"
        notes.append(f"{left_out} {images} left out (cosine of at least {options.duplicate_cosine:g})")
    return notes


def _wanted(options: Options) -> str:
    wanted = []
    if options.where:
        wanted.append("meets the condition" if len(options.where) == 1 else "meets the conditions")
    if options.min_relevance is not None:
        wanted.append(f"has a relevance of at least {options.min_relevance:g}")
    if options.duplicate_cosine is not None:
        wanted.append("differs enough from the hits")
    return " and ".join(wanted) or "was found"
