"""Compare `clipsieve serve` with clip-retrieval's back end: the same texts, weights and vectors, in interleaved rounds.

    python tests/drills/service/clip_back.py STORE ... --peer-env DIR --json clip_back.json

The peer's environment is made on the first run; see `tests/drills/clip_retrieval.py`. Each STORE has an exact index,
and a model of a local folder. The peer gets its vectors in an exact index of float32, and its model in float32.

Both get the same requests: `POST /knn-service` for 10 images, without near-duplicates being left out. The texts are
captions of `--texts` (a folder of data with `captions.tsv` and `text_queries.parquet` somewhere below it), and no
server sees one of them twice. clipsieve keeps no vectors of texts. In a second pair of rows, the texts are drawn with
repetitions, the n-th of 10,000 with a frequency of 1/n, and clipsieve has its usual cache, which the peer has not.

All servers run, and are loaded in turns, every other round in reverse order: first by one client, then by 16. The
clients are threads of this process, which does nothing else; `client_cores` says how much of a core they took. The peer
runs on Flask's own server, as `clip-retrieval back` starts it, which closes the connection after each answer, and also
on waitress with 16 threads, which keeps connections. Before that, both must find the same images.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from pipeline import __version__
from pipeline.machine import cpu_name, num_cores
from query import Searcher
from tests.drills.clip_retrieval import PEER, PEER_VERSION, SHARED, make_peer_env, peer_versions, without_machine
from tests.drills.service.load import Client, Load, load
from tests.drills.service.peer_back import SETTINGS, export, running_peer
from tests.kit.service import ROOT, Running, running

K = 10
WAITRESS = "waitress"
CLIENTS = 16
WAYS = {"alone": 1, "together": CLIENTS}
"""How many clients there are."""
COMPARED_FACTS = ("p50_ms", "p99_ms", "per_second")
WARM_UP = 30
COMPARED = 200
POOL = 10_000
OURS, OURS_KEPT = "clipsieve", "clipsieve, repeated texts"
PEER_KEPT = f"{PEER}, repeated texts"
TUNED = {f"{PEER} on {WAITRESS}, {count} thread{'s'[: count - 1]}": count for count in sorted({1, num_cores()})}
RIVALS = {OURS: (PEER, *TUNED), OURS_KEPT: (PEER_KEPT,)}
PEER_PACKAGES = ("all_clip", "open_clip_torch", "torch", "numpy", "faiss-cpu", "Flask", "Werkzeug", WAITRESS)
OUR_PACKAGES = ("torch", "numpy", "faiss-gpu", "fastapi", "uvicorn", "pyarrow")


def main() -> None:
    arguments = parse_arguments()
    python = make_peer_env(arguments.peer_env, arguments.peer_python, WAITRESS)
    results = {"environment": environment(arguments, python), "stores": []}
    for store in arguments.store:
        with tempfile.TemporaryDirectory(prefix="clipsieve-drill-") as folder:
            results["stores"].append(compare(store, Path(folder), python, arguments))
    for result in results["stores"]:
        print_table(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, nargs="+")
    parser.add_argument("--peer-env", type=Path, required=True, help="environment of the peer; created if missing")
    parser.add_argument("--peer-python", default="python3.11", help="Python to create it with")
    shared = Path(os.environ.get(SHARED, ROOT.parent / "shared")).absolute()
    parser.add_argument("--texts", type=Path, default=shared / "data")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--alone", type=int, default=200, help="requests of one client in a round")
    parser.add_argument("--together", type=int, default=600, help="requests of 16 clients in a round")
    parser.add_argument("--json", type=Path, help="write the results here")
    return parser.parse_args()


def compare(store: Path, folder: Path, python: Path, arguments: argparse.Namespace) -> dict:
    """Serve one store in all ways, and load the servers in turns."""
    peer, texts = export(store, store.name, folder), Texts(arguments.texts)
    with ExitStack() as stack:
        plain = stack.enter_context(running(store, flags=("--device", "cpu", "--text-cache", "0")))
        keeping = stack.enter_context(running(store, flags=("--device", "cpu")))
        flask = stack.enter_context(running_peer(peer, python))
        ports = {OURS: port_of(plain), OURS_KEPT: port_of(keeping), PEER: flask, PEER_KEPT: flask}
        for name, num_threads in TUNED.items():
            ports[name] = stack.enter_context(running_peer(peer, python, num_threads))
        rounds: dict[str, list[dict[str, Load]]] = {name: [] for name in ports}
        same = same_hits(ports[OURS], flask, [request(text, store.name) for text in texts.new(COMPARED)])
        for port in {*ports.values()}:
            load(port, [request(text, store.name) for text in texts.new(WARM_UP)], CLIENTS)
        for number in range(arguments.rounds):
            asked = {
                is_drawn: {way: [request(text, store.name) for text in take(getattr(arguments, way))] for way in WAYS}
                for is_drawn, take in ((False, texts.new), (True, texts.drawn))
            }
            for name in list(ports) if number % 2 == 0 else reversed(ports):
                found = {
                    way: load(ports[name], asked[name in (OURS_KEPT, PEER_KEPT)][way], num_clients)
                    for way, num_clients in WAYS.items()
                }
                rounds[name].append(found)
                facts = {way: one.facts for way, one in found.items()}
                print(f"{store.name}, round {number + 1} of {arguments.rounds}, {name}: {facts}", file=sys.stderr)
    return {"store": store.name, **facts_of(store), "same": same, "servers": summarised(rounds)}


class Texts:
    """Captions: some that come once, others that come again and again."""

    def __init__(self, folder: Path) -> None:
        captions = [line.split("\t")[-1] for path in sorted(folder.rglob("captions.tsv")) for line in open(path)]
        for path in sorted(folder.rglob("text_queries.parquet")):
            captions += pq.read_table(path, columns=["query"])["query"].to_pylist()
        self._rng = np.random.default_rng(0)
        distinct = list(self._rng.permutation(list(dict.fromkeys(text.strip() for text in captions))))
        self._pool, self._new = distinct[:POOL], iter(distinct[POOL:])
        weights = 1 / np.arange(1, POOL + 1)
        self._weights = weights / weights.sum()

    def new(self, count: int) -> list[str]:
        """Texts that nobody has seen."""
        return [str(next(self._new)) for _ in range(count)]

    def drawn(self, count: int) -> list[str]:
        """Texts of which the n-th comes with a frequency of 1/n."""
        return [str(self._pool[place]) for place in self._rng.choice(POOL, count, p=self._weights)]


def request(text: str, name: str) -> bytes:
    """A whole HTTP request, as the peer's client sends it."""
    fields = {"text": text, "modality": "image", "num_images": K, "num_result_ids": K, "indice_name": name}
    body = json.dumps({**fields, "deduplicate": False, "use_safety_model": False, "use_mclip": False}).encode()
    return b"POST /knn-service HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def same_hits(ours: int, peers: int, requests: list[bytes]) -> dict[str, float]:
    """How far both find the same: the best hit, all hits, and the largest difference of a similarity."""
    with Client(ours) as one, Client(peers) as other:
        pairs = [(json.loads(one.ask(asked)), json.loads(other.ask(asked))) for asked in requests]
    keys = [tuple([hit["key"] for hit in hits] for hits in pair) for pair in pairs]
    scores = np.array([[[hit["similarity"] for hit in hits] for hits in pair] for pair in pairs])
    found = {
        "best": statistics.mean(mine[0] == theirs[0] for mine, theirs in keys),
        "all": statistics.mean(set(mine) == set(theirs) for mine, theirs in keys),
        "similarity": float(np.abs(scores[:, 0] - scores[:, 1]).max()),
    }
    if found["similarity"] > 1e-4:
        raise SystemExit(f"the servers do not find the same: {found}")
    return found


def summarised(rounds: dict[str, list[dict[str, Load]]]) -> list[dict]:
    """Medians over rounds; ratios are medians of those of each round."""
    facts = {name: [{way: one.facts for way, one in found.items()} for found in all_] for name, all_ in rounds.items()}

    def median(name: str, way: str, fact: str, rival: str | None = None) -> float:
        values = [one[way][fact] for one in facts[name]]
        if rival:
            values = [value / one[way][fact] for value, one in zip(values, facts[rival], strict=True)]
        return round(statistics.median(values), 3)

    return [
        {
            "name": name,
            **{way: {fact: median(name, way, fact) for fact in facts[name][0][way]} for way in WAYS},
            "ratios": {
                rival: {way: {fact: median(name, way, fact, rival) for fact in COMPARED_FACTS} for way in WAYS}
                for rival in RIVALS.get(name, ())
            },
            "rounds": facts[name],
        }
        for name in rounds
    ]


def port_of(service: Running) -> int:
    return int(service.url.rsplit(":", 1)[1])


def facts_of(store: Path) -> dict:
    """What is searched."""
    with Searcher.open(store, device="cpu") as searcher:
        index, spec = searcher.current[0].index, searcher.encoder
        return {"num_images": index.num_rows, "dim": spec.embedding_dim, "index": index.recipe.factory}


def environment(arguments: argparse.Namespace, python: Path) -> dict:
    """The hardware, versions and command of this run, without paths of this machine."""
    return {
        "command": " ".join(["python", "tests/drills/service/clip_back.py", *map(without_machine, sys.argv[1:])]),
        "date": date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": num_cores(),
        "load_before": os.getloadavg()[0],
        "clipsieve": {"version": __version__, "python": sys.version.split()[0]}
        | {name: version(name) for name in OUR_PACKAGES},
        PEER: {"version": PEER_VERSION, "settings": SETTINGS} | peer_versions(python, PEER_PACKAGES),
    }


def print_table(result: dict) -> None:
    print(f"{result['store']}: {result['num_images']} images, the same best hit for {result['same']['best']:.1%}")
    print("| server | p50, ms | p99, ms | requests/s | at 16 clients: p50, ms | p99, ms | requests/s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for server in result["servers"]:
        cells = [f"{server[way][fact]:.1f}" for way in WAYS for fact in COMPARED_FACTS]
        print(f"| {server['name']} | {' | '.join(cells)} |")
        for rival, ratios in server["ratios"].items():
            cells = [f"{ratios[way][fact]:.2f}x" for way in WAYS for fact in COMPARED_FACTS]
            print(f"| ... to {rival} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
