"""Requests that come at the same time are answered together: what came during a batch is the next one."""

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from pipeline.errors import ClipsieveError
from query.hits.hits import Hits
from query.queries.request import Request
from query.searcher import Searcher
from query.service.metrics import Metrics

MOST_TOGETHER = 32
"""Requests of a batch."""


class Asker:
    """Asks one store, in batches, on a thread of its own. Nobody waits for a batch to fill up."""

    def __init__(self, name: str, searcher: Searcher, metrics: Metrics) -> None:
        """Ask nothing yet."""
        self._name, self._searcher, self._metrics = name, searcher, metrics
        self._waiting: deque[tuple[Request, asyncio.Future[Hits]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"search-{name}")
        self._work: asyncio.Task[None] | None = None

    async def ask(self, request: Request) -> Hits:
        """Answer a request. Several at once take less time than one by one.

        Raises:
            ClipsieveError: As `Searcher.search`.
        """
        answer: asyncio.Future[Hits] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._answer_all())
        return await answer

    def close(self) -> None:
        """End the thread."""
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

    def _answers(self, requests: list[Request]) -> list[Hits | Exception]:
        try:
            answers = self._searcher.ask_all(requests)
        except ClipsieveError as error:
            if len(requests) == 1:
                return [error]
            return [found for request in requests for found in self._answers([request])]  # one of them is to blame
        except Exception as error:  # a fault of ours, which must not end the task that answers the others
            return [error] * len(requests)
        self._metrics.batch(
            self._name, len(requests), list({id(hits.timings): hits.timings for hits in answers}.values())
        )
        return answers
