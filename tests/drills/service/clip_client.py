"""Ask `clipsieve serve` with clip-retrieval's own client: a text, an image file and a vector.

    python tests/drills/service/clip_client.py STORE --photo FILE --peer-env DIR

The client runs in the peer's environment (see `tests/drills/clip_retrieval.py`) with its defaults. What it finds is
compared with what `/search` finds; the photo and the vector, which are of the store, with themselves.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a package of the peer is called tests

from drills.clip_retrieval import make_peer_env, peer_environ

TEXT = "two dogs playing in snow"


def main() -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    import httpx
    import numpy as np

    from query import Searcher
    from tests.kit.service import running

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--photo", type=Path, required=True, help="an image file of the store")
    parser.add_argument("--peer-env", type=Path, required=True, help="environment of the peer; created if missing")
    parser.add_argument("--peer-python", default="python3.11", help="Python to create it with")
    arguments = parser.parse_args()
    python = make_peer_env(arguments.peer_env, arguments.peer_python)
    with Searcher.open(arguments.store, device="cpu") as searcher:
        [*_, fifth] = searcher.search(TEXT, k=5)
        vector = searcher.current[0].vectors(np.array([fifth.id]))[0]
    queries = [{"text": TEXT}, {"image": str(arguments.photo.resolve())}, {"embedding_input": vector.tolist()}]
    with running(arguments.store, flags=("--device", "cpu")) as service:
        job = {"url": f"{service.url}/knn-service", "name": arguments.store.name, "queries": queries}
        # -P, because a file beside this one has the name of a module of the peer
        command = [python, "-P", Path(__file__).resolve(), "--inside", json.dumps(job)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, env=peer_environ()).stdout)
        asked = {"text": TEXT, "k": 40, "unique_cosine": 0.94}
        hits = httpx.get(f"{service.url}/search", params=asked).json()["hits"]
    by_text, by_image, by_vector = found
    checks = {
        "text": [hit["id"] for hit in by_text] == [hit["id"] for hit in hits],
        "image": by_image[0]["key"].endswith(arguments.photo.name),
        "vector": by_vector[0]["id"] == fifth.id,
    }
    for (name, is_same), answer in zip(checks.items(), found, strict=True):
        print(f"{name}: {'as expected' if is_same else 'NOT as expected'}, {len(answer)} answers; {answer[0]}")
    if not all(checks.values()):
        raise SystemExit(1)


def inside_peer_env(job: dict) -> None:
    """Ask with the peer's client."""
    from clip_retrieval.clip_client import ClipClient

    client = ClipClient(url=job["url"], indice_name=job["name"])
    print(json.dumps([client.query(**query) for query in job["queries"]]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside_peer_env(json.loads(sys.argv[2]))
    else:
        main()
