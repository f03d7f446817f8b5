"""Requests that come together are answered together, and none of them harms another."""

import asyncio
from contextlib import contextmanager
from threading import Event

import pytest

from indexer import build_index
from pipeline.errors import InputError
from query import Searcher
from query.queries.options import Options
from query.queries.request import Request
from query.service.asking import MOST_QUICK_HITS, MOST_QUICK_SENTENCES, MOST_TOGETHER, Asker
from query.service.metrics import Metrics
from tests.kit.vector_store import unit_vectors, vector_store

VECTORS = unit_vectors(200, 16)
LIMIT_S = 20


@pytest.fixture(scope="module")
def searcher(tmp_path_factory):
    store = vector_store(tmp_path_factory.mktemp("asked") / "store", VECTORS, 100)
    build_index(store.root, proof=False)
    with Searcher.open(store.root, device="cpu") as found:
        yield found


def like(id_, k=5, **options):
    return Request(like=(id_,), options=Options(k=k, **options))


NO_TEXT = like(0)
"""Stands for a text: no model has made the vectors of this store."""


class Slow:
    """A searcher that notes its batches, and answers those with a marked request only when it may."""

    def __init__(self, searcher):
        self.searcher, self.batches, self.may_go_on = searcher, [], Event()
        self.marked, self.faulty = [], []

    def ask_all(self, requests):
        self.batches.append(list(requests))
        if any(request in self.marked for request in requests):
            assert self.may_go_on.wait(LIMIT_S)
        if any(request in self.faulty for request in requests):
            raise RuntimeError("a fault of ours")
        return self.searcher.ask_all([NO_TEXT if one.text else one for one in requests])


def size_count(metrics, at_most):
    return metrics.registry.get_sample_value("clipsieve_batch_size_bucket", {"store": "s", "le": f"{at_most:.1f}"})


@contextmanager
def asking(searcher):
    slow, metrics = Slow(searcher), Metrics()
    asker = Asker("s", slow, metrics)
    try:
        yield asker, slow, metrics
    finally:
        slow.may_go_on.set()
        asker.close()


async def until(condition):
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.001)


async def asked_behind(asker, slow, first, others):
    """The answers, or errors, of the others: they came while the first was being answered."""
    slow.marked.append(first)
    tasks = [asyncio.create_task(asker.ask(first))]
    await until(lambda: slow.batches)
    tasks += [asyncio.create_task(asker.ask(one)) for one in others]
    await asyncio.sleep(0)
    slow.may_go_on.set()
    return (await asyncio.gather(*tasks, return_exceptions=True))[1:]


def test_what_comes_during_a_batch_is_the_next_batch(searcher):
    others = [like(id_) for id_ in range(1, MOST_TOGETHER + 9)]
    with asking(searcher) as (asker, slow, metrics):
        answers = asyncio.run(asked_behind(asker, slow, like(0), others))
    assert [len(batch) for batch in slow.batches] == [1, MOST_TOGETHER, 8]
    assert [answer.request for answer in answers] == others
    assert [answer[0].id for answer in answers] == [searcher.ask(one)[0].id for one in others]
    assert [size_count(metrics, size) for size in (1, 8, MOST_TOGETHER)] == [1, 2, 3]


def test_a_wrong_request_fails_alone_and_with_its_own_error(searcher):
    others = [like(id_) for id_ in range(1, 9)]
    others[2], others[7] = like(5000), Request(vector=VECTORS[0, :3])
    with asking(searcher) as (asker, slow, _):
        answers = asyncio.run(asked_behind(asker, slow, like(0), others))
    assert [type(answer) for answer in answers].count(InputError) == 2
    assert "id 5000" in str(answers[2])
    assert "shape (3,)" in str(answers[7])
    assert [answers[place][0].rank for place in (0, 1, 3, 4, 5, 6)] == [1] * 6


def test_a_fault_of_ours_hits_one_request_and_the_next_ones_are_answered(searcher):
    with asking(searcher) as (asker, slow, _):
        slow.faulty.append(like(3))

        async def ask():
            found = await asked_behind(asker, slow, like(0), [like(2), like(3), like(4)])
            return [*found, await asker.ask(like(5))]

        answers = asyncio.run(ask())
    assert isinstance(answers[1], RuntimeError)
    assert [len(answers[place]) for place in (0, 2, 3)] == [5, 5, 5]


def test_a_request_whose_client_has_gone_is_not_answered(searcher):
    async def ask(asker, slow):
        slow.marked.append(like(0))
        first = asyncio.create_task(asker.ask(like(0)))
        await until(lambda: slow.batches)
        gone, stays = asyncio.create_task(asker.ask(like(1))), asyncio.create_task(asker.ask(like(2)))
        await asyncio.sleep(0)
        gone.cancel()
        slow.may_go_on.set()
        await asyncio.gather(first, stays)

    with asking(searcher) as (asker, slow, _):
        asyncio.run(ask(asker, slow))
    assert slow.batches == [[like(0)], [like(2)]]


@pytest.mark.parametrize(
    "slow_one",
    [
        like(0, k=MOST_QUICK_HITS + 1),
        like(0, where=("key like '%1%'",)),
        like(0, unique=True),
        Request(text="a dog", templates=tuple(f"{number} {{}}" for number in range(MOST_QUICK_SENTENCES + 1))),
    ],
    ids=["many hits", "condition", "unique", "templates"],
)
def test_slow_requests_do_not_hold_up_quick_ones(searcher, slow_one):
    async def ask(asker, slow):
        slow.marked.append(slow_one)
        waiting = asyncio.create_task(asker.ask(slow_one))
        await until(lambda: slow.batches)
        async with asyncio.timeout(LIMIT_S):
            quick = await asker.ask(like(1))
        is_done_before = waiting.done()
        slow.may_go_on.set()
        return quick, await waiting, is_done_before

    with asking(searcher) as (asker, slow, _):
        quick, late, is_done_before = asyncio.run(ask(asker, slow))
    assert not is_done_before
    assert (len(quick), late.request) == (5, NO_TEXT if slow_one.text else slow_one)
