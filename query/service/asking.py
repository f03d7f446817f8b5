"""Requests that come at the same time are answered together: what came during a batch is the next one."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from indexer.searcher import search_on_this_thread_alone
from query.hits.hits import Hits
from query.queries.request import Request
from query.searcher import Searcher
from query.service.metrics import Metrics

MOST_TOGETHER = 32
"""Requests of a batch."""
MOST_QUICK_HITS = 100
MOST_QUICK_SENTENCES = 4
"""Requests for more hits, those with more to embed, and those with conditions or without near-duplicates, are answered
on a lane of their own: they can take hundreds of times as long."""


class Asker:
    """Asks one store, on two lanes, so that slow requests do not hold up quick ones."""

    def __init__(self, name: str, searcher: Searcher, metrics: Metrics, num_threads: int = 1) -> None:
        """Ask nothing yet. Quick requests are answered on `num_threads` threads, slow ones on one."""
        self._name, self._searcher, self._metrics = name, searcher, metrics
        self._quick = _Lane(f"search-{name}", self._answers, num_threads)
        self._slow = _Lane(f"slow-search-{name}", self._answers, 1)

    async def ask(self, request: Request) -> Hits:
        """Answer a request. Several at once take less time than one by one.

        Raises:
            ClipsieveError: As `Searcher.search`.
        """
        return await (self._quick if _is_quick(request) else self._slow).ask(request)

    def close(self) -> None:
        """End the threads."""
        self._quick.close()
        self._slow.close()

    def _answers(self, requests: list[Request]) -> list[Hits | Exception]:
        try:
            answers = self._searcher.ask_all(requests)
        except Exception as error:  # also a fault of ours: it must not end the task that answers the others
            if len(requests) == 1:
                return [error]
            middle = len(requests) // 2  # one of them is to blame, and its half is searched for it again
            return self._answers(requests[:middle]) + self._answers(requests[middle:])
        self._metrics.batch(
            self._name, len(requests), list({id(hits.timings): hits.timings for hits in answers}.values())
        )
        return answers


class _Lane:
    """Answers in batches, on threads of its own. Nobody waits for a batch to fill up."""

    def __init__(self, name: str, answers: Callable[[list[Request]], list[Hits | Exception]], num_threads: int) -> None:
        self._answers, self._num_threads, self._num_busy = answers, num_threads, 0
        self._waiting: deque[tuple[Request, asyncio.Future[Hits]]] = deque()
        # a thread for each core, so none needs those of FAISS
        self._threads = ThreadPoolExecutor(num_threads, name, search_on_this_thread_alone)
        self._tasks = set[asyncio.Task[None] | None]()

    async def ask(self, request: Request) -> Hits:
        answer: asyncio.Future[Hits] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        self._start()
        return await answer

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        if len(self._tasks) < self._num_threads:
            self._tasks.add(asyncio.create_task(self._answer_all()))

    async def _answer_all(self) -> None:
        try:
            while batch := self._next_batch():
                if self._waiting:
                    self._start()
                await self._answer(batch)
        finally:  # here, so that no request comes between: nobody would answer it
            self._tasks.remove(asyncio.current_task())

    async def _answer(self, batch: list[tuple[Request, asyncio.Future[Hits]]]) -> None:
        requests = [request for request, _ in batch]
        self._num_busy += 1
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, self._answers, requests)
        finally:
            self._num_busy -= 1
        for (_, answer), one in zip(batch, found, strict=True):
            if answer.done():  # the client has gone, or waited too long
                continue
            if isinstance(one, Hits):
                answer.set_result(one)
            else:
                answer.set_exception(one)

    def _next_batch(self) -> list[tuple[Request, asyncio.Future[Hits]]]:
        batch = []
        share = -(-len(self._waiting) // (self._num_threads - self._num_busy))  # other idle threads take the rest
        while self._waiting and len(batch) < min(MOST_TOGETHER, share):
            request, answer = self._waiting.popleft()
            if not answer.done():
                batch.append((request, answer))
        return batch


def _is_quick(request: Request) -> bool:
    options = request.options
    is_small = options.k <= MOST_QUICK_HITS and request.num_sentences <= MOST_QUICK_SENTENCES
    return is_small and not options.where and options.unique is False
