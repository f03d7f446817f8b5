"""Build autofaiss's own choice of index in an environment of its own, and measure it with text queries.

    python tests/drills/index/autofaiss.py --peer-env DIR --budget 12G --budget 60M --json autofaiss.json

The environment is made on the first run: autofaiss 2.18.0 with a faiss-cpu that it works with. autofaiss gets the
vectors, the memory budget and the number of cores, and makes every other choice itself: the recipe, and the nprobe or
efSearch, which it tunes for 10 ms a query. Its index is then read by this process, and searched with text queries, one
at a time, on one thread: at its own setting, and at the settings that trade time for recall. By default the vectors
are the shared ones; `--vectors` and `--texts` take others.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEER = "autofaiss==2.18.0"
PEER_NEEDS = ("faiss-cpu==1.12.0", "pyarrow<20")
"""autofaiss fails on faiss-cpu 1.15.1 (it names an argument of `OPQMatrix` that is gone), and needs NumPy 1."""
INSIDE = "--inside-peer-env"
EF_SEARCH = (16, 32, 64, 128, 256, 512, 1024)
NPROBE = (1, 4, 16, 32, 64, 128, 256, 512)
"""Settings of the curve."""


def main() -> None:
    arguments = parse_arguments()
    import numpy as np

    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    from tests.drills.index.measure import embeddings_of, exact, real_vectors

    if arguments.vectors:
        images_NE = np.concatenate([embeddings_of(path) for path in sorted(arguments.vectors.glob("part-*.parquet"))])
        queries_QE = embeddings_of(arguments.texts)
    else:
        images_NE, _, queries_QE = real_vectors()
    queries_QE = queries_QE[: arguments.queries]
    truth_QK = exact(images_NE, queries_QE)
    arguments.work.mkdir(parents=True, exist_ok=True)
    results = []
    for budget in arguments.budget:
        built = build(images_NE, budget, arguments)
        points = curve(Path(built["index"]), built, queries_QE, truth_QK, arguments.timed)
        results.append(built | {"points": points})
        print_points(results[-1])
    if arguments.json:
        arguments.json.write_text(json.dumps({"peer": PEER, "builds": results}, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-env", type=Path, required=True, help="environment of the peer; created if missing")
    parser.add_argument("--peer-python", default="python3.11", help="Python to create it with")
    parser.add_argument("--budget", action="append", required=True, help="memory budget, such as 600M; repeatable")
    parser.add_argument("--build-memory", default="20G", help="memory that the peer may use to build")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--vectors", type=Path, help="folder with part-*.parquet, such as STORE/embeddings")
    parser.add_argument("--texts", type=Path, help="Parquet file of text vectors to search with")
    parser.add_argument("--queries", type=int, default=2000, help="texts to take the recall over")
    parser.add_argument("--timed", type=int, default=1000, help="texts to time, in blocks of 100")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "clipsieve-autofaiss")
    parser.add_argument("--json", type=Path, help="write the results here")
    return parser.parse_args()


def make_peer_env(folder: Path, python: str) -> Path:
    """Create the peer's environment if needed, and return its Python."""
    peer_python = folder.absolute() / "bin" / "python"
    if not peer_python.exists():
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        subprocess.run([peer_python, "-m", "pip", "install", "--quiet", PEER, *PEER_NEEDS], check=True)
    return peer_python


def build(images_NE: object, budget: str, arguments: argparse.Namespace) -> dict:
    """Build an index in the peer's environment, or take the one that an earlier run with the same budget built."""
    import numpy as np

    folder = arguments.work / f"{len(images_NE)}x{images_NE.shape[1]}-{budget}"
    report = folder / "report.json"
    if not report.exists():
        python = make_peer_env(arguments.peer_env, arguments.peer_python)
        (folder / "vectors").mkdir(parents=True, exist_ok=True)
        np.save(folder / "vectors" / "vectors.npy", images_NE.astype(np.float16))
        job = {
            "embeddings": str(folder / "vectors"),
            "index_path": str(folder / "peer.index"),
            "index_infos_path": str(folder / "infos.json"),
            "max_index_memory_usage": budget,
            "current_memory_available": arguments.build_memory,
            "nb_cores": arguments.cores,
            "metric_type": "ip",
        }
        # -P, because this file has the same name as the peer's package
        command = [python, "-P", Path(__file__).resolve(), INSIDE, json.dumps(job)]
        with (folder / "log.txt").open("w") as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
        if code or not report.exists():
            raise SystemExit(f"autofaiss built no index within {budget}; see {folder / 'log.txt'}")
    return json.loads(report.read_text(encoding="utf-8"))


def inside_peer_env(job: dict) -> None:
    """Runs in the peer's environment."""
    import faiss
    from autofaiss import build_index

    started = time.perf_counter()
    index, infos = build_index(**job)
    seconds = time.perf_counter() - started
    if index is None:
        raise SystemExit("autofaiss gave up")
    path = Path(job["index_path"])
    report = {
        "budget": job["max_index_memory_usage"],
        "index": str(path),
        "index_key": infos["index_key"],
        "index_param": infos["index_param"],
        "build_s": seconds,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "num_bytes": path.stat().st_size,
        "faiss": faiss.__version__,
        "own_figures": {name: value for name, value in infos.items() if isinstance(value, int | float | str)},
    }
    (path.parent / "report.json").write_text(json.dumps(report), encoding="utf-8")


def settings_of(built: dict) -> list[str]:
    """The peer's own setting, then others like it that take more or less time."""
    own = built["index_param"]
    if "HNSW" in built["index_key"].partition("IVF")[0]:
        return [own, *(f"efSearch={value}" for value in EF_SEARCH)]
    # a coarse HNSW finds the lists only if it looks at more of them than are probed
    coarse = "quantizer_efSearch={}," if "_HNSW" in built["index_key"] else ""
    return [own, *(f"{coarse.format(2 * value)}nprobe={value}" for value in NPROBE)]


def peer_conditions(built: dict) -> list:
    """The peer's index at each of its settings, to be timed in turn with other conditions."""
    import faiss

    from tests.drills.index.measure import Condition, K

    index = faiss.read_index(built["index"])
    space = faiss.ParameterSpace()
    current = None

    def at(setting: str) -> Condition:
        def search(queries_QE: object) -> object:
            nonlocal current
            if current != setting:  # not for every query: reading the text of the setting takes time
                space.set_index_parameters(index, setting)
                current = setting
            return index.search(queries_QE, K)[1]

        return Condition(f"autofaiss {built['budget']} {setting}", search, {"setting": setting})

    return [at(setting) for setting in settings_of(built)]


def curve(path: Path, built: dict, queries_QE: object, truth_QK: object, num_timed: int) -> list[dict]:
    """Recall and time of the peer's index at each setting."""
    from tests.drills.index.measure import interleaved, recalls, summary

    conditions = peer_conditions(built)
    points = [condition.detail | summary(recalls(condition.search(queries_QE), truth_QK)) for condition in conditions]
    times = interleaved(conditions, queries_QE[:num_timed])
    return [point | times[condition.name] for point, condition in zip(points, conditions, strict=True)]


def print_points(built: dict) -> None:
    print(
        f"{built['budget']}: {built['index_key']}, {built['num_bytes'] / 1e6:.0f} MB, "
        f"built in {built['build_s']:.0f} s "
        f"with {built['peak_rss_bytes'] / 1e6:.0f} MB"
    )
    for number, point in enumerate(built["points"]):
        name = point["setting"] + (" (its own)" if number == 0 else "")
        print(f"  {name}: recall@10 {point['recall']:.4f}, p5 {point['p5']:.1f}, {point['ms']:.3f} ms")


if __name__ == "__main__":
    if INSIDE in sys.argv:
        inside_peer_env(json.loads(sys.argv[sys.argv.index(INSIDE) + 1]))
    else:
        main()
