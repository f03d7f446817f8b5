"""What the page shows beside the hits: the images that the query names, and what a first visit can start from."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from indexer.searcher import IndexSearcher
from pipeline.errors import ClipsieveError
from query.hits.relevance import ORDINARY_TEXTS
from query.hits.values import json_rows
from query.service.answers import hit_answer
from query.service.questions import SearchParams
from query.service.stores import ServedStore

HERE = "."
"""What addresses of images begin with: they are relative."""
_NUM_IMAGES = 12
_NUM_TEXTS = 6
_LONGEST_TEXT = 100


def _rows(store: ServedStore, like: Sequence[int | str]) -> list[dict[str, Any]]:
    """The metadata of images by id or key. Empty if the store lacks one of them."""
    opened, _ = store.searcher.current
    try:
        ids = opened.ids_of(like)
        rows = json_rows(opened.metadata(ids))
    except ClipsieveError:
        return []
    return [{**row, "id": int(id_)} for row, id_ in zip(rows, ids, strict=True)]


def liked(store: ServedStore, params: SearchParams) -> list[dict[str, Any]]:
    """The images that the query names: the field and the value of each, and the image as a hit if the store has it."""
    version, found = store.searcher.current[0].version, []
    for field, names in (("like", params.like), ("like_key", params.like_key)):
        for one in names:
            hits = [hit_answer(store, row, version, HERE) for row in _rows(store, [one])]
            found.append({"field": field, "value": one, "hit": hits[0] if hits else None})
    return found


def some_images(store: ServedStore) -> list[dict[str, Any]]:
    """A few images of a store as hits, always the same ones. There are none if its index has an earlier format."""
    index = store.searcher.current[0].index
    if not isinstance(index, IndexSearcher):
        return []
    num_rows = index.num_rows + len(index.dead)
    chosen = np.random.default_rng(0).choice(num_rows, min(num_rows, _NUM_IMAGES + len(index.dead)), replace=False)
    live = np.setdiff1d(chosen, index.dead, assume_unique=True)[:_NUM_IMAGES]
    version = store.searcher.current[0].version
    return [hit_answer(store, row, version, HERE) for row in _rows(store, index.rows.ids(live).tolist())]


def some_texts(images: Sequence[dict[str, Any]]) -> list[str]:
    """Texts to try: captions of these images, or ordinary ones if they have none."""
    captions = [" ".join((row["caption"] or "").split()).removesuffix(" .") for row in images]
    fitting = [one for one in dict.fromkeys(captions) if one and len(one) <= _LONGEST_TEXT and not one.startswith('"')]
    return sorted(fitting, key=len)[:_NUM_TEXTS] or list(ORDINARY_TEXTS[::6])
