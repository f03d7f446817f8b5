"""What the service adds to a bare search of the index: one client, one vector at a time.

    python tests/drills/service/overhead.py STORE --json overhead.json

The queries are the shared text vectors, sent to `POST /search` as JSON over one connection that stays open. The bare
search is `IndexSearcher.search` of the same vectors, one by one, in another process. Both take turns, a round of
queries each. The overhead is the difference of the percentiles of all rounds; `paired` has those of the differences,
query by query.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from query import Searcher
from tests.drills.index.measure import K, real_vectors
from tests.drills.service.common import Client, percentiles, surroundings, write
from tests.kit.service import NO_MODEL, running

ROUND = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    queries_QE = real_vectors()[2][: arguments.queries]
    ours, theirs = get_context("spawn").Pipe()
    bare = get_context("spawn").Process(
        target=search_when_asked, args=(theirs, arguments.store, len(queries_QE)), daemon=True
    )
    bare.start()
    recipe, num_rows = ours.recv()
    with running(arguments.store, flags=("--device", "cpu"), prelude=NO_MODEL) as service:
        client = Client(service.url)
        asked = [json.dumps({"vector": one.tolist(), "k": K}).encode() for one in queries_QE]
        requests = [client.request("POST", "/search", one) for one in asked]
        bodies: list[bytes] = []

        def ask(number: int) -> None:
            status, body = client.send(requests[number])
            assert status == 200, body
            bodies.append(body)

        times = [np.empty(len(queries_QE)), np.empty(len(queries_QE))]
        for start in (0, *range(0, len(queries_QE), ROUND)):  # the first one warms both
            places = np.arange(start, min(start + ROUND, len(queries_QE)))
            client.reconnect()  # the service ends connections that are not used for 5 s
            times[0][places] = timed(ask, places)
            ours.send(places)
            times[1][places] = ours.recv()
        client.close()
    ours.send(None)
    bare_ids = ours.recv()
    bare.join()
    found = [[hit["id"] for hit in json.loads(body)["hits"]] for body in bodies[ROUND:]]
    both, alone = (percentiles(one) for one in times)
    write(
        {
            **surroundings(),
            "store": arguments.store.name,
            "recipe": recipe,
            "num_rows": num_rows,
            "num_queries": len(queries_QE),
            "k": K,
            "same_hits": float(np.mean([one == other for one, other in zip(found, bare_ids, strict=True)])),
            "service_ms": both,
            "bare_ms": alone,
            "overhead_ms": {name: round(both[name] - alone[name], 3) for name in both},
            "paired_ms": percentiles(times[0] - times[1]),
        },
        arguments.json,
    )


def search_when_asked(connection: Connection, store: Path, num_queries: int) -> None:
    """Search for the queries whose places come, and send back the milliseconds; at the end, all ids."""
    queries_QE = real_vectors()[2][:num_queries]
    ids: list[list[int]] = [[]] * num_queries
    with Searcher.open(store, device="cpu") as searcher:
        index = searcher.current[0].index

        def search(number: int) -> None:
            ids[number] = index.search(queries_QE[number][None], K)[1][0].tolist()

        connection.send((index.recipe.factory, index.num_rows))
        while (places := connection.recv()) is not None:
            connection.send(timed(search, places))
    connection.send(ids)


def timed(way: Callable[[int], None], places: np.ndarray) -> np.ndarray:
    """Milliseconds of each query."""
    times = np.empty(len(places))
    for number, place in enumerate(places.tolist()):
        started = time.perf_counter()
        way(place)
        times[number] = 1000 * (time.perf_counter() - started)
    return times


if __name__ == "__main__":
    main()
