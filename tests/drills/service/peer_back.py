"""clip-retrieval's back end over the vectors and the model of a store, in the environment of the peer."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a package of the peer is called tests

from drills.clip_retrieval import PEER, give_model, peer_environ

STARTING_S = 120
COLUMNS = ("key", "url", "caption")
SETTINGS = {
    "columns_to_return": list(COLUMNS),
    "enable_mclip_option": False,
    "provide_aesthetic_embeddings": False,
    "use_arrow": True,
    "use_jit": True,
}
"""Of `clip-retrieval back`: no models besides CLIP, and for the rest what is fastest."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A store as the peer has it."""

    name: str
    model: Path
    folder: Path
    """Its layout: index, metadata and the list of indices."""


def export(store: Path, name: str, folder: Path) -> Peer:
    """Write the vectors and metadata of a store as the peer reads them: an exact index and an Arrow file."""
    import faiss
    import numpy as np
    import pyarrow as pa

    from pipeline.model.spec import ModelSource
    from query import Searcher

    with Searcher.open(store, device="cpu") as searcher:
        index, source = searcher.current[0].index, searcher.encoder.source
        assert isinstance(source, ModelSource)
        ids = index.rows.ids(np.arange(index.num_rows))
        vectors_NE, metadata = index.vectors(ids), index.metadata(ids, ["key", "uri", "caption"])
    flat = faiss.IndexFlatIP(vectors_NE.shape[1])
    flat.add(vectors_NE)
    (folder / "metadata").mkdir(parents=True)
    faiss.write_index(flat, str(folder / "image.index"))
    table = metadata.rename_columns(["key", "url", "caption"])
    with pa.OSFile(str(folder / "metadata" / "0.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    (folder / "indices.json").write_text(json.dumps({name: str(folder)}))
    return Peer(name, Path(source.model.removeprefix("local-dir:")), folder)


@contextmanager
def running_peer(peer: Peer, python: Path, num_threads: int | None = None) -> Iterator[int]:
    """Serve until the block ends; gives the port.

    Args:
        peer: What is served.
        python: Of the peer's environment.
        num_threads: Serve on waitress, with so many threads of OpenMP. None is what the peer does by itself.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = {**SETTINGS, "indices_paths": str(peer.folder / "indices.json"), "port": port}
    arguments["clip_model"] = f"open_clip:{peer.model.name}/given"
    job = {"model": peer.model.name, "folder": str(peer.model), "scratch": str(peer.folder)}
    job |= {"arguments": arguments, "is_waitress": num_threads is not None}
    tuned = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(num_threads)} if num_threads else {}
    log = peer.folder / f"log-{port}.txt"
    with log.open("w") as file:
        # -P, because a file beside this one has the name of a package of the peer
        command = [python, "-P", Path(__file__).resolve(), json.dumps(job)]
        process = subprocess.Popen(command, stdout=file, stderr=file, env=peer_environ() | tuned)
    try:
        _wait_for(port, process, log)
        yield port
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen, log: Path) -> None:
    started = time.monotonic()
    while time.monotonic() - started < STARTING_S and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit(f"{PEER} did not start:\n{log.read_text()[-3000:]}")


def inside_peer_env(job: dict) -> None:
    """Run the peer's command line in its environment, with a local model."""
    import logging

    import open_clip
    from clip_retrieval import cli
    from flask import Flask

    give_model(open_clip, job, Path(job["scratch"]))
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request takes time
    if job["is_waitress"]:
        from waitress import serve

        Flask.run = lambda app, host, port, **_: serve(app, host="127.0.0.1", port=port, threads=16)
    sys.argv = [PEER, "back", *(f"--{name}={value}" for name, value in job["arguments"].items())]
    cli.main()


if __name__ == "__main__":
    inside_peer_env(json.loads(sys.argv[1]))
