"""The service at half of the greatest load for half an hour: no error, and no more memory at the end than at the start.

    python tests/drills/service/soak.py STORE [STORE2] --json soak.json

First, clients that ask without a pause find the greatest load. Then requests are sent at half of that rate, at random
times: five minutes to fill the caches, and `--minutes` that count. They are texts (more than are kept), images of
the store, conditions, near-duplicates left out, comparisons, thumbnails, images that are sent, and the page; those that
the service does not have are left out. The time of a request counts from when it was due. `rss_mb` is the memory of the
server and its processes; the growth compares the medians of the first and the last tenth of the time that counts.
"""

import argparse
import json
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.drills.service.common import Client, percentiles, surroundings, write
from tests.kit.service import Running, running

CLIENTS = 16
MOST_LOAD_S = 30
SAMPLE_S = 5
NUM_TEXTS = 20_000
WORDS = (
    ("red", "small", "old", "wet", "happy", "dark", "young", "striped", "empty", "two"),
    ("dog", "child", "boat", "car", "bird", "house", "cat", "tree", "ball", "horse"),
    ("in snow", "on a beach", "at night", "by a river", "in a street", "on grass", "under trees", "in the sun"),
)
SHARES = {
    "text": 0.6, "like": 0.08, "where": 0.05, "unique": 0.03, "compare": 0.05, "thumb": 0.1, "image": 0.03, "page": 0.06
}  # fmt: skip


class Mix:
    """Random requests of a client."""

    def __init__(self, client: Client, kinds: list[str], ids: list[int], photos: list[bytes], seed: int) -> None:
        self._client, self._ids, self._photos = client, ids, photos
        self._kinds, self._rng = kinds, np.random.default_rng(seed)
        shares = np.array([SHARES[kind] for kind in kinds])
        self._shares = shares / shares.sum()

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        while True:
            kind = str(self._rng.choice(self._kinds, p=self._shares))
            yield kind, getattr(self, f"_{kind}")()

    def _get(self, path: str) -> bytes:
        return self._client.request("GET", path)

    def _some_text(self) -> str:
        number = int(self._rng.integers(NUM_TEXTS))
        words = (words[number // step % len(words)] for words, step in zip(WORDS, (1, 10, 100), strict=True))
        return quote(f"{' '.join(words)} {number}")

    def _some_id(self) -> int:
        return int(self._rng.choice(self._ids))

    def _text(self) -> bytes:
        return self._get(f"/search?text={self._some_text()}")

    def _like(self) -> bytes:
        return self._get(f"/search?like={self._some_id()}")

    def _where(self) -> bytes:
        return self._get(f"/search?text={self._some_text()}&where=key+LIKE+'%25{self._rng.integers(100)}%25'")

    def _unique(self) -> bytes:
        return self._get(f"/search?text={self._some_text()}&unique=true&k=100")

    def _compare(self) -> bytes:
        return self._get(f"/compare?text={self._some_text()}")

    def _thumb(self) -> bytes:
        return self._get(f"/thumbs/{self._some_id()}")

    def _page(self) -> bytes:
        return self._get(f"/?text={self._some_text()}")

    def _image(self) -> bytes:
        photo = self._photos[self._rng.integers(len(self._photos))]
        head = b'--edge\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
        body = head + b"Content-Type: image/jpeg\r\n\r\n" + photo + b"\r\n--edge--\r\n"
        return self._client.request("POST", "/search", body, "multipart/form-data; boundary=edge")


class Load:
    """Clients on threads of their own, at a rate or as fast as they can."""

    def __init__(self, mixes: list[Mix], clients: list[Client], rate: float | None) -> None:
        self.took_ms: dict[str, list[float]] = {}
        self.statuses: Counter[str] = Counter()
        self._end, self._rate = threading.Event(), None if rate is None else rate / len(clients)
        self._threads = [threading.Thread(target=self._run, args=pair) for pair in zip(mixes, clients, strict=True)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _run(self, mix: Mix, client: Client) -> None:
        rng, due = np.random.default_rng(), time.perf_counter()
        for kind, request in mix:
            if self._rate:
                due += rng.exponential(1 / self._rate)
                self._end.wait(max(0, due - time.perf_counter()))
            else:
                due = time.perf_counter()
            if self._end.is_set():
                return
            try:
                status = client.send(request)[0]
            except OSError as error:
                self.statuses[f"{kind} {type(error).__name__}"] += 1
                client.reconnect()
                continue
            self.statuses[f"{kind} {status}"] += 1
            self.took_ms.setdefault(kind, []).append(1000 * (time.perf_counter() - due))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", type=Path, nargs="+")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--warm-up-minutes", type=float, default=5)
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    flags = ("--device", "cpu", "--text-cache", "5000", "--thumb-cache", "1000000")  # so small that both are soon full
    with running(*arguments.stores, flags=flags) as service:
        clients = [Client(service.url) for _ in range(CLIENTS)]
        mixes = mixes_of(clients)
        most = Load(mixes, clients, None)
        time.sleep(MOST_LOAD_S)
        most.end()
        most_rate = sum(most.statuses.values()) / MOST_LOAD_S
        sampled(service, Load(mixes, clients, most_rate / 2), arguments.warm_up_minutes)
        load = Load(mixes, clients, most_rate / 2)
        samples = sampled(service, load, arguments.minutes)
        exit_code = service.end()
        log = service.log.read_text().splitlines()
    tenth = max(1, len(samples) // 10)
    first, last = (statistics.median(one["rss_mb"] for one in some) for some in (samples[:tenth], samples[-tenth:]))
    write(
        {
            **surroundings(),
            "stores": [store.name for store in arguments.stores],
            "clients": CLIENTS,
            "greatest_per_second": round(most_rate, 1),
            "greatest_statuses": dict(sorted(most.statuses.items())),
            "minutes": arguments.minutes,
            "per_second": round(sum(load.statuses.values()) / 60 / arguments.minutes, 1),
            "statuses": dict(sorted(load.statuses.items())),
            "errors": sum(count for status, count in load.statuses.items() if not status.endswith(" 200")),
            "ms": {kind: percentiles(np.array(took)) for kind, took in sorted(load.took_ms.items())},
            "rss_mb_first": first,
            "rss_mb_last": last,
            "growth_percent": round(100 * (last / first - 1), 2),
            "samples": samples[:: max(1, len(samples) // 60)],
            "exit_code": exit_code,
            "log_lines": log[len(arguments.stores) :][-20:],
        },
        arguments.json,
    )


def mixes_of(clients: list[Client]) -> list[Mix]:
    """What each client can ask: what the service has, and what its first store holds."""
    first = clients[0]

    def get(path: str) -> bytes:
        status, body = first.send(first.request("GET", path))
        return body if status == 200 else b""

    paths = json.loads(get("/openapi.json"))["paths"]
    hits = json.loads(get("/search?text=a+photo&k=500"))["hits"]
    photos = [photo for hit in hits[:20] if (photo := get(f"/images/{hit['id']}"))]
    has = {
        "compare": "/compare" in paths and len(json.loads(get("/info"))["stores"]) > 1,
        "thumb": "/thumbs/{id}" in paths,
        "image": "post" in paths["/search"] and bool(photos),
        "page": bool(get("/")),
    }
    kinds = [kind for kind in SHARES if has.get(kind, True)]
    ids = [hit["id"] for hit in hits]
    return [Mix(client, kinds, ids, photos, seed) for seed, client in enumerate(clients)]


def sampled(service: Running, load: Load, minutes: float) -> list[dict[str, float]]:
    """Let a load run, look at the service now and then, and end the load."""
    samples, ends_at = [], time.monotonic() + 60 * minutes
    while time.monotonic() < ends_at:
        time.sleep(min(SAMPLE_S, max(0.1, ends_at - time.monotonic())))
        samples.append(held_by(service.process.pid))
        print(samples[-1], sum(load.statuses.values()), file=sys.stderr, flush=True)
    load.end()
    return samples


def held_by(pid: int) -> dict[str, float]:
    """Memory, processes, threads and open files of a process and its children."""
    held: Counter[str] = Counter()
    waiting = [pid]
    while waiting:
        process = Path(f"/proc/{waiting.pop()}")
        try:
            status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
            held += Counter(
                kb=int(status["VmRSS"].split()[0]),
                processes=1,
                threads=int(status["Threads"]),
                files=len(list((process / "fd").iterdir())),
            )
            for task in (process / "task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except OSError:  # it has just ended
            continue
    kb = held.pop("kb")
    return {"rss_mb": round(kb / 1024, 1), **held}


if __name__ == "__main__":
    main()
