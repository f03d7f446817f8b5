"""autofaiss's own choice of index: built in an environment of its own, then read and searched by this process."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

PEER = "autofaiss==2.18.0"
PEER_NEEDS = ("faiss-cpu==1.12.0", "pyarrow<20")
"""autofaiss fails on faiss-cpu 1.15.1 (it names an argument of `OPQMatrix` that is gone), and needs NumPy 1."""
EF_SEARCH = (16, 32, 64, 128, 256, 512, 1024)
NPROBE = (1, 4, 16, 32, 64, 128, 256, 512)
"""Settings of the curve."""


def make_peer_env(folder: Path, python: str) -> Path:
    """Create the peer's environment if needed, and return its Python."""
    peer_python = folder.absolute() / "bin" / "python"
    if not peer_python.exists():
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        subprocess.run([peer_python, "-m", "pip", "install", "--quiet", PEER, *PEER_NEEDS], check=True)
    return peer_python


def build_peer(images_NE: np.ndarray, budget: str, build_memory: str, cores: int, python: Path, folder: Path) -> dict:
    """Build an index in the peer's environment, or take the one that an earlier run built in the same folder."""
    from tests.drills.index.processes import run

    report = folder / "report.json"
    if not report.exists():
        (folder / "vectors").mkdir(parents=True, exist_ok=True)
        np.save(folder / "vectors" / "vectors.npy", images_NE.astype(np.float16))
        job = {
            "embeddings": str(folder / "vectors"),
            "index_path": str(folder / "peer.index"),
            "index_infos_path": str(folder / "infos.json"),
            "max_index_memory_usage": budget,
            "current_memory_available": build_memory,
            "nb_cores": cores,
            "metric_type": "ip",
        }
        # -P, because a file beside this one has the name of the peer's package
        built = run([python, "-P", Path(__file__).resolve(), json.dumps(job)])
        if built.exit_code or not report.exists():
            raise SystemExit(f"autofaiss built no index within {budget}: {built.errors[-2000:]}")
        found = json.loads(report.read_text(encoding="utf-8"))
        found |= {"cpu_s": built.cpu_s, "peak_anonymous": built.peak_anonymous}
        report.write_text(json.dumps(found), encoding="utf-8")
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
        "index": str(path),
        "recipe": infos["index_key"],
        "setting": infos["index_param"],
        "build_s": seconds,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "num_bytes": path.stat().st_size,
        "faiss": faiss.__version__,
        "own_figures": {name: value for name, value in infos.items() if isinstance(value, int | float)},
    }
    (path.parent / "report.json").write_text(json.dumps(report), encoding="utf-8")


def settings_of(built: dict) -> list[str]:
    """The peer's own setting, then others like it that take more or less time."""
    own = built["setting"]
    if "HNSW" in built["recipe"].partition("IVF")[0]:
        return [own, *(f"efSearch={value}" for value in EF_SEARCH)]
    # a coarse HNSW finds the lists only if it looks at more of them than are probed
    coarse = "quantizer_efSearch={}," if "_HNSW" in built["recipe"] else ""
    return [own, *(f"{coarse.format(2 * value)}nprobe={value}" for value in NPROBE)]


def peer_conditions(built: dict) -> list:
    """The peer's index at each of its settings, to be timed in turn with other conditions."""
    import faiss

    from tests.drills.index.measure import Condition, K

    index = faiss.read_index(built["index"])
    space = faiss.ParameterSpace()
    current = None

    def at(setting: str) -> Condition:
        def search(queries_QE: np.ndarray) -> np.ndarray:
            nonlocal current
            if current != setting:  # not for every query: reading the text of the setting takes time
                space.set_index_parameters(index, setting)
                current = setting
            return index.search(queries_QE, K)[1]

        return Condition(f"autofaiss {setting}", search, {"setting": setting})

    # its own setting may be one of the others
    return [at(setting) for setting in dict.fromkeys(settings_of(built))]


if __name__ == "__main__":
    inside_peer_env(json.loads(sys.argv[1]))
