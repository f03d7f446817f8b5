"""Requests that come at the same time are answered together: what came during a batch is the next one."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

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
        self._quick = _Lane(f"search-{name}", self._answers)
        self._slow = _Lane(f"slow-search-{name}", self._answers)

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
    """Answers in batches, on a thread of its own. Nobody waits for a batch to fill up."""

    def __init__(self, name: str, answers: Callable[[list[Request]], list[Hits | Exception]]) -> None:
        self._answers = answers
        self._waiting: deque[tuple[Request, asyncio.Future[Hits]]] = deque()
        self._thread = ThreadPoolExecutor(1, name)
        self._work: asyncio.Task[None] | None = None

    async def ask(self, request: Request) -> Hits:
        answer: asyncio.Future[Hits] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._answer_all())
        return await answer

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _answer_all(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next_batch():
            found = await loop.run_in_executor(self._thread, self._answers, [request for request, _ in batch])
            for (_, answer), one in zip(batch, found, strict=True):
                if answer.done():  # the client has gone, or waited too long
                    continue
                if isinstance(one, Hits):
                    answer.set_result(one)
                else:
                    answer.set_exception(one)

    def _next_batch(self) -> list[tuple[Request, asyncio.Future[Hits]]]:
        batch = []
        while self._waiting and len(batch) < MOST_TOGETHER:
            request, answer = self._waiting.popleft()
            if not answer.done():
                batch.append((request, answer))
        return batch


def _is_quick(request: Request) -> bool:
    options = request.options
    is_small = options.k <= MOST_QUICK_HITS and request.num_sentences <= MOST_QUICK_SENTENCES
    return is_small and not options.where and options.unique is False
