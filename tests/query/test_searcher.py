"""`Searcher` on a real store: every kind of query against what the vectors themselves say."""

import numpy as np
import pytest

from indexer.build import build_index
from indexer.settings import IndexSettings
from pipeline.errors import ConfigError, InputError
from pipeline.store.parts import embeddings_of
from pipeline.store.tombstones import DELETED, add_tombstones
from pipeline.store.view import StoreView
from query import Searcher
from query.queries.options import Options
from query.queries.request import Request
from query.text import text_encoder
from tests.kit.vector_store import unit_vectors, vector_store

DIM = 16


@pytest.fixture
def made(tmp_path):
    """A store of made vectors, with an index."""
    vectors = unit_vectors(300, DIM)
    store = vector_store(tmp_path / "store", vectors, 100, columns={"number": "int64"})
    build_index(IndexSettings(store=store.root))
    return store, vectors


def vectors_by_key(root):
    found = {}
    for _, table in StoreView.open(root).parts():
        ids, vectors = embeddings_of(table)
        keys = dict(zip(table["id"].to_pylist(), table["key"].to_pylist(), strict=True))
        found |= {keys[i]: vector.astype(np.float32) for i, vector in zip(ids.tolist(), vectors, strict=True)}
    return found


def ranking(root, query_E):
    scores = {key: float(vector @ query_E) for key, vector in vectors_by_key(root).items()}
    return sorted(scores, key=scores.get, reverse=True)


def test_texts_sums_and_templates_find_what_their_vectors_are_nearest_to(photos_store, searcher):
    encoder = text_encoder(searcher.encoder, "cpu")
    cat, dog = encoder.encode_texts(["a cat", "a dog"])
    assert [hit.key for hit in searcher.search("a cat", k=5)] == ranking(photos_store, cat)[:5]
    summed = searcher.search('"a cat" - 0.5*"a dog"', k=5)
    assert [hit.key for hit in summed] == ranking(photos_store, cat - 0.5 * dog)[:5]
    averaged = searcher.search("cat", k=5, templates=("a {}", "{}"))
    mean = encoder.encode_texts(["a cat", "cat"]).sum(axis=0)
    assert [hit.key for hit in averaged] == ranking(photos_store, mean)[:5]
    together = searcher.search("a cat", k=5, vector=3 * dog)
    assert [hit.key for hit in together] == ranking(photos_store, cat + dog)[:5]


def test_several_texts_give_the_answers_of_each_alone(searcher):
    queries = ["a cat", "a dog", '"a cat" + "a dog"', "a cat"]
    for query, hits in zip(queries, searcher.search_many(queries, k=4), strict=True):
        alone = searcher.search(query, k=4)
        assert (hits.request.text, [hit.id for hit in hits]) == (query, [hit.id for hit in alone])
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone], abs=1e-5)
    assert searcher.search_many([]) == []


def test_images_of_the_store_find_others_like_them(made):
    store, vectors = made
    with Searcher.open(store.root) as searcher:
        near = np.argsort(-(vectors @ vectors[5]))
        hits = searcher.search(like=5, k=3)
        assert [hit.key for hit in hits] == [f"{row // 100}/{row % 100}.jpg" for row in near[near != 5][:3]]
        assert [hit.id for hit in searcher.search(like="0/5.jpg", k=3)] == [hit.id for hit in hits]
        assert [hit.id for hit in searcher.search(vector=vectors[5], k=9).like(hits[0])] == [
            hit.id for hit in searcher.search(like=hits[0], k=9)
        ]
        two = searcher.search(like=[5, 7], k=300)
        assert len(two) == 298
        assert not {5, 7} & {hit.id for hit in two}


def test_images_that_are_not_in_the_store(made):
    store, _ = made
    add_tombstones(store, [5], DELETED, {5: "0/5.jpg"})
    with Searcher.open(store.root) as searcher:
        for like, fault in (
            (5, "was deleted"),
            ("0/5.jpg", "was deleted"),
            (150, "no image with the id 150"),
            ("it's", 'key "it\'s"'),
        ):
            with pytest.raises(InputError, match=fault):
                searcher.search(like=like)
        with pytest.raises(InputError, match=r"the vector has the shape \(3,\)"):
            searcher.search(vector=np.ones(3))
        with pytest.raises(InputError, match="zero or not finite"):
            searcher.search(vector=np.full(DIM, np.nan))


def test_conditions_narrow_the_answers_and_can_be_added(made):
    store, vectors = made
    with Searcher.open(store.root) as searcher:
        hits = searcher.search(vector=vectors[5], k=300, where="width < 150")
        rows = [row for row in np.argsort(-(vectors @ vectors[5])) if row % 100 < 50]
        assert [hit.key for hit in hits][:10] == [f"{row // 100}/{row % 100}.jpg" for row in rows][:10]
        assert {hit.key for hit in hits} == {f"{row // 100}/{row % 100}.jpg" for row in rows}
        assert {hit.columns["number"] for hit in hits.where("number in (3, 4)")} == {3, 4}
        both = searcher.search(vector=vectors[5], k=300, where=["width < 150", "number in (3, 4) or id = 0"])
        assert {hit.columns["number"] for hit in both} == {0, 3, 4}
        assert len(hits.where("number = 99")) == 0
        # each condition is read alone, so that none can undo another one
        with pytest.raises(ConfigError, match="character"):
            hits.where("number = 3) or (number = 99")


def test_requests_that_differ_in_everything_are_answered_together_as_alone(searcher):
    requests = [
        Request(text="a"),
        Request(text="b", options=Options(k=3)),
        Request(text="a", templates=("a photo of {}", "{} at night")),
        Request(like=(3,), options=Options(k=3, unique=True)),
        Request(like=(3,), options=Options(k=3, unique=1.0)),
        Request(text="c", like=(2,), options=Options(k=4, where=("width > 45",))),
        Request(text="word " * 100),
    ]
    together = searcher.ask_all(requests)
    assert [len(hits.warnings) for hits in together] == [0, 0, 0, 0, 0, 0, 1]
    for hits, request in zip(together, requests, strict=True):
        alone = searcher.ask(request)
        assert hits.request == request
        assert [hit.id for hit in hits] == [hit.id for hit in alone]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone], abs=1e-6)
        assert hits.warnings == alone.warnings


def test_the_vectors_of_recent_texts_are_kept(photos_store):
    with Searcher.open(photos_store, device="cpu", kept_texts=2) as searcher:
        searcher.search("a")
        _, queries = searcher.current
        encoded, encode = [], queries.encode_texts
        queries.encode_texts = lambda texts: encoded.append(texts) or encode(texts)
        for text in ("a", '"a" + "b"', "c", "b", "c", "a"):
            searcher.search(text)
        assert encoded == [["b"], ["c"], ["a"]]


def test_a_refresh_sees_deleted_rows_and_a_new_index(made):
    store, vectors = made
    searcher = Searcher.open(store.root)
    assert not searcher.refresh()
    add_tombstones(store, [5], DELETED)
    assert searcher.search(vector=vectors[5], k=1)[0].id == 5  # a searcher keeps what it has opened
    assert searcher.refresh()
    assert searcher.search(vector=vectors[5], k=1)[0].id != 5
    assert not searcher.refresh()
    build_index(IndexSettings(store=store.root, rebuild=True))
    assert searcher.refresh()
    assert len(searcher) == 299
