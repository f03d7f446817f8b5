"""One decode process, and a pool of them."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from query.service.images.messages import Message, head_of, receive_message
from query.service.problems import ProblemError

STARTING_S = 60.0
GRACE_S = 5.0
"""A process that nobody ends at its limit, because the service was killed, ends itself so much later."""

_ENDING_S = 1.0
_CODE = Path(__file__).resolve().parents[3]
_COMMAND = (sys.executable, "-P", "-m", "query.service.images.process")
_BUFFER_BYTES = 2**20


class DecodeFailedError(Exception):
    """The process died of an image, or was killed because it took too long."""


class DecodeProcess:
    """A process that does one task at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Use a process that was just started."""
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._writer, self._reader = process, process.stdin, process.stdout

    @classmethod
    async def start(cls) -> "DecodeProcess":
        """Start one, and wait until it is ready.

        Raises:
            ProblemError: 503 if it does not start.
        """
        found = cls(
            await asyncio.create_subprocess_exec(
                *_COMMAND,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=_environment(),
                limit=_BUFFER_BYTES,
                start_new_session=True,  # Ctrl-C in a terminal is for the service
            )
        )
        try:
            async with asyncio.timeout(STARTING_S):
                await receive_message(found._reader)
        except (TimeoutError, EOFError, OSError, ValueError) as error:
            await found.end()
            raise ProblemError(503, "no image can be decoded: the decode process does not start") from error
        except BaseException:
            await found.end()
            raise
        return found

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.returncode is None

    async def ask(self, task: dict[str, Any], data: bytes) -> Message:
        """Give it a task, and wait for the answer.

        Raises:
            EOFError, OSError: If it ended.
            ValueError: If it does not answer as it should.
        """
        self._writer.write(head_of(task, len(data)))
        self._writer.write(data)
        await self._writer.drain()
        return await receive_message(self._reader)

    async def end(self) -> None:
        """Kill it: it holds nothing that must be saved."""
        if self.is_alive:
            with suppress(ProcessLookupError):
                self._process.kill()
        self._writer.close()
        await self._process.wait()

    async def how_it_ended(self) -> str:
        """For people: its signal, or its exit code."""
        with suppress(TimeoutError):  # `kill` could take the exit code from asyncio, which waits for it in a thread
            async with asyncio.timeout(_ENDING_S):
                await self._process.wait()
        code = self._process.returncode
        if code is None:
            return "it stopped answering"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class Pool:
    """At most so many processes, started when they are needed. The tasks wait in a queue."""

    def __init__(self, most: int) -> None:
        """Start none yet."""
        self._slots, self._is_closed = asyncio.Semaphore(most), False
        self._idle: list[DecodeProcess] = []
        self.processes: set[DecodeProcess] = set()
        """Those that run."""

    async def ask(self, task: dict[str, Any], limit_s: float, data: bytes = b"") -> Message:
        """Have a task done. One that fails takes its process with it, and no other task.

        Raises:
            DecodeFailedError: If it takes longer than `limit_s`, or its process dies.
            ProblemError: 503 if no process starts.
        """
        async with self._slots:
            process, is_done = await self._next(), False
            try:
                async with asyncio.timeout(limit_s):
                    answer = await process.ask({**task, "limit_s": limit_s + GRACE_S}, data)
                is_done = True
            except TimeoutError as error:
                raise DecodeFailedError(f"it took longer than {limit_s:g} s") from error
            except (EOFError, OSError, ValueError) as error:
                raise DecodeFailedError(f"the process that decoded it died ({await process.how_it_ended()})") from error
            finally:  # also if the client went away: its answer must not reach another one
                if is_done:
                    self._idle.append(process)
                else:
                    self.processes.discard(process)
                    await process.end()
            return answer

    async def close(self) -> None:
        """End all processes, and start no more."""
        self._is_closed = True
        await asyncio.gather(*(process.end() for process in self.processes))

    async def _next(self) -> DecodeProcess:
        while self._idle:
            process = self._idle.pop()
            if process.is_alive:
                return process
            self.processes.discard(process)
        if self._is_closed:
            raise ProblemError(503, "the service is ending")
        process = await DecodeProcess.start()
        self.processes.add(process)
        return process


def _environment() -> dict[str, str]:
    """Ours, so that the code and the credentials for servers are found; but not the token of the service."""
    path = os.pathsep.join([str(_CODE), *filter(None, [os.environ.get("PYTHONPATH")])])
    known = {name: value for name, value in os.environ.items() if name != "CLIPSIEVE_SERVE_TOKEN"}
    return {**known, "PYTHONPATH": path}
