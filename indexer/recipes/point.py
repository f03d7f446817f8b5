"""Operating points: how hard a search of an index tries, and the FAISS parameters that say so."""

from typing import Any

import faiss
from pydantic import BaseModel, ConfigDict

from indexer.recipes.recipe import Kind, transforms_of

_MORE_PER_HIT = 4
"""Candidates for each hit beyond the tenth: codes err less on ranks than on the few best."""


class OperatingPoint(BaseModel):
    """`effort` is nprobe or efSearch, 0 where there is no such choice. `candidates` are scored again for 10 hits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    effort: int = 0
    candidates: int = 10

    def candidates_for(self, k: int) -> int:
        """How many candidates to take from the index for `k` hits."""
        return max(k, self.candidates + _MORE_PER_HIT * max(0, k - 10) if self.candidates > 10 else k)


def search_parameters(
    index: faiss.Index, kind: Kind, effort: int, selector: faiss.IDSelector | None = None
) -> tuple[faiss.SearchParameters | None, list[Any]]:
    """Parameters of one search.

    Args:
        index: The index, with its transforms.
        kind: What it is.
        effort: nprobe or efSearch.
        selector: The positions that may be found.

    Returns:
        The parameters, and what must stay alive while they are used.
    """
    choice = {} if selector is None else {"sel": selector}
    if kind is Kind.LISTS:
        inner = faiss.SearchParametersIVF(nprobe=max(1, effort), **choice)
    elif kind is Kind.GRAPH:
        inner = faiss.SearchParametersHNSW(efSearch=max(1, effort), **choice)
    elif choice:
        inner = faiss.SearchParameters(**choice)
    else:
        return None, []
    if not transforms_of(index):
        return inner, [selector]
    return faiss.SearchParametersPreTransform(index_params=inner), [inner, selector]
