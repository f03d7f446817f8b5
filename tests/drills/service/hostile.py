"""Hostile requests against a real server, from a seed: what must not happen, did not.

    python tests/drills/service/hostile.py STORE [STORE2] --num 10000 --seed 1

No answer has a status of 500 or more, or one that the OpenAPI document does not declare for its route. None holds a
file outside the stores, or a path of the server. Whatever came before, a search finds the same images, and after a
warm-up the memory of the server and its processes stays the same.
"""

import argparse
import json
import re
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.drills.service.attacks import Attack, Attacks
from tests.kit.raw_http import connect, read_to_end, statuses
from tests.kit.service import ROOT, running

CANARY = "canary-5b0c1d7e"
AT_A_TIME = 8
CHECKED_EVERY = 500
WARM_AFTER = 2000
MOST_GROWTH = 0.05
FLAGS = ("--timeout-s", "10", "--text-cache", "100", "--device", "cpu", "--warm-images")


@dataclass
class Outcome:
    """What a run found."""

    counts: dict[str, Counter] = field(default_factory=dict)
    """Statuses by kind; 0 is no answer."""
    violations: list[str] = field(default_factory=list)
    memory_mb: dict[int, float] = field(default_factory=dict)
    """By the number of requests before."""

    def table(self) -> str:
        """All of it for people."""
        lines = [f"{'kind':12} {'sent':>6}  statuses"]
        for kind, found in sorted(self.counts.items()):
            shown = "  ".join(f"{status or 'none'}: {number}" for status, number in sorted(found.items()))
            lines.append(f"{kind:12} {found.total():6}  {shown}")
        lines.append("memory (MB) after requests: " + ", ".join(f"{n}: {mb:.0f}" for n, mb in self.memory_mb.items()))
        lines += [f"violation: {one}" for one in self.violations[:40]] or ["no violation"]
        return "\n".join(lines)


class Judge:
    """Says what is wrong with an answer."""

    def __init__(self, url: str, stores: Iterable[Path]) -> None:
        """Read what the service declares."""
        document = json.loads(_get(f"{url}/openapi.json"))
        self._declared = [
            (
                re.compile(re.sub(r"\\\{.+?\\\}", "[^/]+", re.escape(path))),
                {method.upper(): {int(status) for status in route["responses"]} for method, route in routes.items()},
            )
            for path, routes in document["paths"].items()
        ]
        folders = {str(store.resolve().parent) for store in stores} | {str(ROOT), sys.prefix}
        self._secrets = [CANARY.encode(), b"root:x:0:0", *(folder.encode() for folder in folders)]

    def violations(self, attack: Attack, answer: bytes) -> Iterator[str]:
        """What is wrong, a line each."""
        found = statuses(answer)
        yield from (f"status {status}" for status in found if status >= 500)
        yield from (f"the answer holds {secret!r}" for secret in self._secrets if secret in answer)
        if attack.target is None:
            if not found and not attack.ends_early:
                yield "no answer"
            return
        if len(found) != 1:
            yield f"{len(found)} answers"
        declared = self._statuses(attack.method, attack.target)
        if declared is not None:
            yield from (f"status {status} is not declared" for status in found if status not in declared)

    def _statuses(self, method: str, target: str) -> set[int] | None:
        path = unquote(target.partition("?")[0])
        for pattern, by_method in self._declared:
            if pattern.fullmatch(path):
                return by_method.get(method, {405})
        return None


def attack_all(stores: tuple[Path, ...], num: int, seed: int, is_slow: bool = True) -> Outcome:
    """Send hostile requests to a server of its own."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as folder, running(*stores, flags=FLAGS) as service:
        canary = Path(folder) / "canary.txt"
        canary.write_text(CANARY)
        attacks = Attacks(seed, canary, is_slow)
        judge = Judge(service.url, stores)
        expected = _hits(service.url)
        outcome.memory_mb[0] = memory_mb(service.process.pid)
        with ThreadPoolExecutor(AT_A_TIME) as threads:
            for start in range(0, num, CHECKED_EVERY):
                batch = [attacks.draw() for _ in range(min(CHECKED_EVERY, num - start))]
                for attack, answer in zip(batch, threads.map(lambda one: _send(service.url, one), batch), strict=True):
                    counts = outcome.counts.setdefault(attack.kind, Counter())
                    counts.update(statuses(answer)[:1] or [0])
                    shown = b" ".join(attack.parts)[:150]
                    outcome.violations += [f"{attack.kind}: {one}: {shown}" for one in judge.violations(attack, answer)]
                if _hits(service.url) != expected:
                    outcome.violations.append(f"after {start + len(batch)} requests a search finds other images")
                outcome.memory_mb[start + len(batch)] = memory_mb(service.process.pid)
        log = service.log.read_text()
        if "Traceback" in log:
            outcome.violations.append(f"the server logged an exception: {log[log.index('Traceback') :][:3000]}")
    grown = outcome.memory_mb[num] / outcome.memory_mb.get(WARM_AFTER, outcome.memory_mb[num]) - 1
    if grown > MOST_GROWTH:
        outcome.violations.append(f"the memory grew by {grown:.1%} after the first {WARM_AFTER} requests")
    return outcome


def memory_mb(pid: int) -> float:
    """Resident memory of a process and those that it started."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
        except OSError:
            continue  # it has just ended
        found[int(lines["Pid"])] = (int(lines["PPid"]), int(lines.get("VmRSS", "0 kB").split()[0]) / 1024)

    def total(one: int) -> float:
        return found[one][1] + sum(total(child) for child, (parent, _) in found.items() if parent == one)

    return total(pid)


def _send(url: str, attack: Attack) -> bytes:
    with closing(connect(url)) as connection:
        try:
            for part in attack.parts:
                connection.sendall(part)
                if attack.pause_s:
                    time.sleep(attack.pause_s)
            if attack.kind == "half-closed":
                connection.shutdown(socket.SHUT_WR)
            return read_to_end(connection)
        except TimeoutError:
            return b"HTTP/1.1 599 the server neither answered nor closed the connection"
        except OSError:
            return b"" if attack.ends_early else _rest(connection)


def _rest(connection: socket.socket) -> bytes:
    try:
        return read_to_end(connection)
    except OSError:
        return b""


def _hits(url: str) -> list[int]:
    answer = json.loads(_get(f"{url}/search?text=two%20dogs&k=10"))
    return [hit["id"] for hit in answer["hits"]]


def _get(url: str) -> bytes:
    with urlopen(url, timeout=60) as answer:
        return answer.read()


def main() -> None:
    """Run the drill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", type=Path, nargs="+", help="one or two indexed stores")
    parser.add_argument("--num", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    started = time.monotonic()
    outcome = attack_all(tuple(arguments.stores), arguments.num, arguments.seed)
    print(outcome.table())
    print(f"{arguments.num} requests of seed {arguments.seed} in {time.monotonic() - started:.0f} s")
    sys.exit(bool(outcome.violations))


if __name__ == "__main__":
    main()
