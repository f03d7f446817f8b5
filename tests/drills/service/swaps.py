"""The index is replaced again and again under load: no request may fail, and no answer may be of two indexes.

    python tests/drills/service/swaps.py --json swaps.json

The store grows by steps; the hits and the number of images of an answer tell its step (`tests/kit/growing_store.py`).
Clients ask without a pause, each over a connection that stays open. An answer is mixed if it is of no step, if its step
was seen with another version, or if a client saw a later step before. `held` is what the service holds at the end of
each swap: memory, open files and mapped files of the store.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.drills.service.common import Client, percentiles, surroundings, write
from tests.kit.growing_store import NUM_QUERIES, GrowingStore, K
from tests.kit.service import NO_MODEL, Running, running

REFRESH_S = 0.1


class Asking(threading.Thread):
    """A client that asks until it is told to stop."""

    def __init__(self, url: str, done: threading.Event) -> None:
        super().__init__()
        self.answers: list[tuple[int, int, bytes]] = []
        self.started_at: list[float] = []
        self.took_ms: list[float] = []
        self.errors: list[str] = []
        self._url, self._done = url, done

    def run(self) -> None:
        client = Client(self._url)
        requests = [client.request("GET", f"/search?like={query}&k={K}") for query in range(NUM_QUERIES)]
        while not self._done.is_set():
            query = len(self.answers) % NUM_QUERIES
            started = time.perf_counter()
            try:
                status, body = client.send(requests[query])
            except OSError as error:
                self.errors.append(repr(error))
                client.reconnect()
                continue
            self.started_at.append(started)
            self.took_ms.append(1000 * (time.perf_counter() - started))
            self.answers.append((query, status, body))
        client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        growing, done = GrowingStore(Path(folder) / "store"), threading.Event()
        flags = ("--device", "cpu", "--refresh-s", str(REFRESH_S))
        with running(growing.store.root, flags=flags, prelude=NO_MODEL) as service:
            clients = [Asking(service.url, done) for _ in range(arguments.clients)]
            for client in clients:
                client.start()
            watcher, held, seen_at = Client(service.url), [], []
            info = watcher.request("GET", "/info")
            for _ in range(arguments.swaps):
                growing.grow()
                while json.loads(watcher.send(info)[1])["stores"][0]["num_images"] != growing.num_images:
                    time.sleep(0.01)
                seen_at.append(time.perf_counter())
                held.append(held_by(service, growing.store.root))
            metrics = watcher.send(watcher.request("GET", "/metrics"))[1].decode()
            done.set()
            for client in clients:
                client.join()
            exit_code = service.end()
    lines = [line for line in metrics.splitlines() if line.startswith("clipsieve_index_swaps_total")]
    started = np.concatenate([client.started_at for client in clients])
    took = np.concatenate([client.took_ms for client in clients])
    is_near = (np.abs(started[:, None] - np.array(seen_at)) < REFRESH_S).any(axis=1)
    write(
        {
            **surroundings(),
            "clients": arguments.clients,
            "swaps": float(lines[0].split()[-1]),
            "answers": len(took),
            "failed": sum(status != 200 for client in clients for _, status, _ in client.answers)
            + sum(len(client.errors) for client in clients),
            **judged(growing, clients),
            "ms": percentiles(took),
            "ms_near_a_swap": percentiles(took[is_near]),
            "held_first": held[min(9, len(held) - 1)],
            "held_last": held[-1],
            "exit_code": exit_code,
        },
        arguments.json,
    )


def judged(growing: GrowingStore, clients: list[Asking]) -> dict[str, int]:
    """How many steps were seen, and how many answers were mixed."""
    mixed, versions = 0, dict[int, str]()
    for client in clients:
        steps = []
        for query, status, body in client.answers:
            if status != 200:
                continue
            found = json.loads(body)
            step = growing.step_of(query, [hit["key"] for hit in found["hits"]], found["num_images"])
            if step is None or versions.setdefault(step, found["version"]) != found["version"]:
                mixed += 1
            else:
                steps.append(step)
        mixed += sum(later < earlier for earlier, later in pairwise(steps))
    return {"steps_seen": len(versions), "versions_seen": len(set(versions.values())), "mixed": mixed}


def held_by(service: Running, store: Path) -> dict[str, float]:
    """What the service holds."""
    process = Path(f"/proc/{service.process.pid}")
    [rss] = [line.split()[1] for line in (process / "status").read_text().splitlines() if line.startswith("VmRSS")]
    mapped = [line for line in (process / "maps").read_text().splitlines() if str(store) in line]
    return {
        "rss_mb": round(int(rss) / 1024, 1),
        "files": len(list((process / "fd").iterdir())),
        "mapped": len(mapped),
        "deleted_and_mapped": sum("(deleted)" in line for line in mapped),
    }


if __name__ == "__main__":
    main()
