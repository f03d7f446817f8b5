"""Relevance: against a direct computation, in small stores, beside deleted rows, and on drawn scenes."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from indexer.build import build_index
from indexer.opening import open_index
from indexer.settings import IndexSettings
from pipeline.model.spec import EMBEDDED
from pipeline.scenes.collection import write_collection
from pipeline.source.formats.captions import read_captions
from pipeline.store.tombstones import DELETED, add_tombstones
from pipeline.store.view import StoreView
from query import Searcher
from query.batch import search_file
from query.hits.relevance import MIN_ROWS, ORDINARY_TEXTS, WEAK, Background
from query.queries.options import Options
from query.queries.request import Request
from query.text import text_encoder
from tests.kit.plain_embed import embed_plainly
from tests.kit.vector_store import ids_of, unit_vectors, vector_store

DIM = 16


def opened(root, vectors, deleted=()):
    """An exact index of these vectors, some of which were deleted after it was built."""
    store = vector_store(root, vectors, per_shard=1_000, precision="fp32")
    build_index(IndexSettings(store=root, recipe="Flat"))
    if len(deleted):
        add_tombstones(store, ids_of(len(vectors), 1_000)[deleted], DELETED)
    return open_index(StoreView.open(root))


def test_relevance_is_the_distance_from_the_mean_over_what_chance_reaches(tmp_path):
    images, queries = unit_vectors(300, DIM), unit_vectors(5, DIM, seed=1)
    index = opened(tmp_path / "store", images)
    scores_QK, _ = index.search(queries, 3)
    all_QN = queries @ images.T
    mean, spread = all_QN.mean(axis=1), all_QN.std(axis=1)
    background = Background(index)
    np.testing.assert_allclose(background.spreads(queries), spread, rtol=1e-4)
    chance = np.sqrt(1 - 300.0 ** (-2 * spread**2))
    expected = (scores_QK - mean[:, None]) / chance[:, None]
    np.testing.assert_allclose(background.relevance(queries, scores_QK), expected, rtol=1e-4, atol=1e-5)
    shared = (scores_QK - mean[:, None]) / np.sqrt(1 - 300.0 ** (-2 * 0.2**2))
    np.testing.assert_allclose(background.relevance(queries, scores_QK, 0.2), shared, rtol=1e-4, atol=1e-5)
    some = background.relevance(queries, scores_QK, np.array([0.2, np.nan, 0.2, np.nan, 0.2]))
    np.testing.assert_array_equal(some[::2], background.relevance(queries, scores_QK, 0.2)[::2])
    np.testing.assert_array_equal(some[1::2], background.relevance(queries, scores_QK)[1::2])


def test_a_query_has_the_same_relevance_alone_and_in_a_batch(tmp_path):
    index, queries = opened(tmp_path / "store", unit_vectors(300, 192)), unit_vectors(257, 192, seed=1)
    scores_QK, _ = index.search(queries, 3)
    background = Background(index)
    for spread in (None, 0.2):
        together = background.relevance(queries, scores_QK, spread)
        alone = [background.relevance(queries[[row]], scores_QK[[row]], spread)[0] for row in range(len(queries))]
        np.testing.assert_array_equal(alone, together)


def test_the_best_of_random_vectors_stays_just_below_one(tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2_200, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for num_rows in (100, 2_000):
        index = opened(tmp_path / str(num_rows), vectors[:num_rows])
        best = index.search(vectors[2_000:], 1)[0]
        assert 0.8 < np.median(Background(index).relevance(vectors[2_000:], best)) < 1


def test_the_sample_is_the_same_each_time_and_another_for_another_seed(tmp_path):
    index = opened(tmp_path / "store", unit_vectors(6_000, DIM))
    queries = unit_vectors(4, DIM, seed=1)
    scores_QK, _ = index.search(queries, 2)
    first = Background(index).relevance(queries, scores_QK)
    np.testing.assert_array_equal(Background(index).relevance(queries, scores_QK), first)
    other = Background(index, seed=1).relevance(queries, scores_QK)
    assert (other != first).all()
    np.testing.assert_allclose(other, first, rtol=0.1)
    assert (first.shape, first.dtype) == ((4, 2), np.float32)


def test_deleted_rows_are_not_in_the_sample(tmp_path):
    images = unit_vectors(5_500, DIM)
    others = images[0] + 0.01 * unit_vectors(500, DIM, seed=3)
    deleted = np.sort(np.random.default_rng(0).choice(6_000, 500, replace=False))
    everything = np.empty((6_000, DIM), np.float32)
    is_live = np.ones(6_000, bool)
    is_live[deleted] = False
    everything[is_live] = images
    everything[deleted] = others / np.linalg.norm(others, axis=1, keepdims=True)
    index = opened(tmp_path / "some", everything, deleted)
    without = opened(tmp_path / "without", images)
    queries = unit_vectors(4, DIM, seed=1)
    scores_QK, _ = without.search(queries, 2)
    np.testing.assert_array_equal(
        Background(index).relevance(queries, scores_QK), Background(without).relevance(queries, scores_QK)
    )


@pytest.mark.parametrize("num_rows", [0, 1, MIN_ROWS - 1])
def test_a_store_that_is_too_small_to_tell(tmp_path, num_rows):
    index = opened(tmp_path / "store", unit_vectors(MIN_ROWS, DIM), np.arange(num_rows, MIN_ROWS))
    assert index.num_rows == num_rows
    queries = unit_vectors(2, DIM, seed=1)
    for spread in (None, 0.2):
        found = Background(index).relevance(queries, np.zeros((2, num_rows), np.float32), spread)
        assert found.shape == (2, num_rows)
        assert np.isnan(found).all()


def test_images_that_all_score_the_same(tmp_path):
    index = opened(tmp_path / "store", np.repeat(unit_vectors(1, DIM), MIN_ROWS, axis=0))
    queries = unit_vectors(2, DIM, seed=1)
    scores_QK, _ = index.search(queries, 3)
    assert np.isnan(Background(index).relevance(queries, scores_QK)).all()


def test_places_without_a_hit_stay_below_everything(tmp_path):
    index = opened(tmp_path / "store", unit_vectors(100, DIM))
    found = Background(index).relevance(unit_vectors(1, DIM, seed=1), np.array([[0.9, -np.inf]], np.float32))
    assert found[0, 0] > 0
    assert found[0, 1] == -np.inf


def test_no_queries_at_all(tmp_path):
    index = opened(tmp_path / "store", unit_vectors(100, DIM))
    empty = np.empty((0, DIM), np.float32)
    assert Background(index).relevance(empty, np.empty((0, 3), np.float32)).shape == (0, 3)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """An indexed store of drawn scenes, and their captions."""
    folder, root = tmp_path_factory.mktemp("scenes"), tmp_path_factory.mktemp("scenes-store")
    captions = write_collection(folder, 120, image_size=70)  # `embed_plainly` takes no larger ones
    store = embed_plainly(folder, root / "store", EMBEDDED)
    build_index(IndexSettings(store=store.root))
    return store.root, [texts[0] for texts in read_captions(captions).values()]


@pytest.fixture(scope="module")
def searcher(scenes):
    with Searcher.open(scenes[0], device="cpu") as found:
        yield found


def test_the_line_on_drawn_scenes(scenes, searcher):
    drawn = [hits[0].relevance for hits in searcher.search_many(scenes[1], k=1)]
    assert np.mean(np.array(drawn) > WEAK) > 0.9
    absurd = ["a tax return form", "the rings of Saturn", "compound interest", "asdfghjkl"]
    assert max(hits[0].relevance for hits in searcher.search_many(absurd, k=1)) < WEAK
    assert len(searcher.search(absurd[0], k=100, min_relevance=WEAK)) == 0
    assert 0 < len(searcher.search(scenes[1][0], k=100, min_relevance=WEAK)) < 100


def test_texts_share_one_spread_and_other_queries_have_their_own(scenes, searcher, tmp_path):
    background, encoder = searcher.current[0].background, text_encoder(searcher.encoder, "cpu")
    spread = background.spreads(encoder.encode_texts(list(ORDINARY_TEXTS))).mean()
    text = scenes[1][7]
    vectors = encoder.encode_texts([text])
    hits = searcher.search(text)
    scores = np.array([[hit.score for hit in hits]], np.float32)
    shared, own = background.relevance(vectors, scores, spread)[0], background.relevance(vectors, scores)[0]
    assert np.abs(shared / own - 1).min() > 0.01
    np.testing.assert_allclose([hit.relevance for hit in hits], shared, rtol=1e-3)
    np.testing.assert_allclose([hit.relevance for hit in searcher.search(vector=vectors[0])], own, rtol=1e-3)
    asked = [Request(text=text), Request(vector=vectors[0]), Request(text=text, vector=vectors[0])]
    together = [[hit.relevance for hit in found] for found in searcher.ask_all(asked)]
    np.testing.assert_allclose(together, [shared, own, own], rtol=1e-3)
    (tmp_path / "queries.txt").write_text(f"{text}\n")
    search_file(searcher, tmp_path / "queries.txt", tmp_path / "hits.parquet", Options())
    np.testing.assert_allclose(pq.read_table(tmp_path / "hits.parquet")["relevance"], shared, rtol=1e-3)


def test_the_vectors_of_ordinary_texts_are_kept(scenes, searcher):
    spread = searcher.current[0].text_spread(searcher.current[1])
    with Searcher.open(scenes[0], device="cpu") as another:
        opened, queries = another.current
        queries.encode_texts = pytest.fail  # it must not load the tower again
        assert opened.text_spread(queries) == spread
