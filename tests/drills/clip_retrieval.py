"""Compare `clipsieve embed` with `clip-retrieval inference`, from image files to vectors, in interleaved rounds.

    python tests/drills/clip_retrieval.py --peer-env DIR --json clip_retrieval.json

The peer gets its own virtual environment in DIR, created on the first run (several GB): clip-retrieval 2.45.0 with its
pinned dependencies, and the torch version that clipsieve uses. The clipsieve under test is the one installed next to
the Python that runs this script.

There are two towers: the reference model (`--model-ti`, default $CLIPSIEVE_SHARED/models/lit-vit-ti-16), and ViT-B-16
with random weights. Both tools embed the same files: the photos of `--images`, linked repeatedly to get `--num-ti` and
`--num-b` images; 0 skips that tower. A round runs every condition once; every other round reverses the order.

The peer runs its own command line with its own defaults (float32, 256 images per batch) on images only, with two
preprocessing workers (`--workers`). Only model loading is replaced, because the original downloads weights from a model
hub. Each run is checked to have embedded every image. A short run needs smaller batches (`--peer-batch-size`).

The comparison uses steady rates:

- clipsieve: the rate that it prints, from the first shard handed out to the last one committed. By then Ray and the
  model have started, but no image is decoded yet.
- the peer: from the end of its first batch to the end of its last, by its own timestamps. This excludes its first
  decoding and the start of its logger. For a run with a single batch, from the start of reading that batch.

clipsieve runs every policy of `--policies` in every precision of `--precision`; `auto` is what it finds fastest, and is
recorded. Its float32 rate is measured in the first round only, to show the effect of the precision; it is not compared.
In int8 it calibrates before it hands out the first shard, so that counts as start, like loading, and is recorded too.

`whole` is the peer's rate from the start of reading, measured like clipsieve's, and the ratio to it. `start` is the
remaining time: the seconds of the command minus images / rate. Give the peer several batches: it decodes up to four
ahead, so the last batches of a short run have the whole machine.
"""

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path

PEER = "clip-retrieval"
FLOAT32 = "clipsieve none, fp32"
PEER_VERSION = "2.45.0"
PEER_PACKAGES = (PEER, "all_clip", "open_clip_torch", "torch", "torchvision", "numpy", "pillow", "setuptools")
OUR_PACKAGES = ("torch", "open_clip_torch", "ray", "pyarrow", "pillow", "numpy")
PREPROCESS = ("mean", "std", "interpolation", "resize_mode")
"""What open_clip does not take from the architecture."""
INSIDE = "--inside-peer-env"
SHARED = "CLIPSIEVE_SHARED"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Tower:
    """A model that both tools run, and the number of images."""

    name: str
    folder: Path | None  # None: an open_clip name, with random weights
    num_images: int

    @property
    def clipsieve_arguments(self) -> list[str]:
        return ["--model", f"local-dir:{self.folder}"] if self.folder else ["--model", self.name, "--random-weights"]


def main() -> None:
    arguments = parse_arguments()
    towers = [
        Tower(arguments.model_ti.name, arguments.model_ti, arguments.num_ti),
        Tower("ViT-B-16", None, arguments.num_b),
    ]
    peer_python = make_peer_env(arguments.peer_env, arguments.peer_python)
    results = {"models": [], "environment": environment(arguments, peer_python)}
    for tower in towers:
        if tower.num_images:
            results["models"].append(compare(tower, arguments, peer_python))
    print_table(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    shared = Path(os.environ.get(SHARED, ROOT.parent / "shared")).absolute()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peer-env", type=Path, required=True, help="virtual environment of the peer; created if missing"
    )
    parser.add_argument("--peer-python", default="python3.11", help="Python to create it with")
    parser.add_argument("--images", type=Path, default=shared / "data/photos-native", help="folder of *.JPEG")
    parser.add_argument(
        "--model-ti", type=Path, default=shared / "models/lit-vit-ti-16", help="folder of the reference model"
    )
    parser.add_argument("--num-ti", type=int, default=3000, help="images for the reference model")
    parser.add_argument("--num-b", type=int, default=500, help="images for ViT-B-16")
    parser.add_argument("--policies", default="none,balanced,fast", help="policies of clipsieve")
    parser.add_argument("--precision", default="auto", help="its precisions, such as auto,int8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-batch-size", type=int, default=256, help="images per batch of the peer")
    parser.add_argument("--workers", type=int, default=2, help="preprocessing workers of the peer")
    parser.add_argument(
        "--work", type=Path, help="folder to keep links, logs and vectors in (default: a temporary folder)"
    )
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    arguments.model_ti = arguments.model_ti.absolute()
    return arguments


def make_peer_env(folder: Path, python: str, *extra: str) -> Path:
    """Create the peer's environment if needed, with extra packages, and return its Python."""
    peer_python = folder.absolute() / "bin" / "python"
    if not peer_python.exists():
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
    install = [str(peer_python), "-m", "pip", "install", "--quiet"]
    found = peer_versions(peer_python, (*PEER_PACKAGES, *extra))
    if (found.get(PEER), found.get("torch")) != (PEER_VERSION, version("torch")):
        subprocess.run([*install, f"{PEER}=={PEER_VERSION}", f"torch=={version('torch')}"], check=True)
    if missing := [name for name in extra if name not in found]:
        subprocess.run([*install, *missing], check=True)
    # last, because torch requires a newer setuptools (to compile extensions), but the peer imports what 70 removed
    subprocess.run([*install, "setuptools<70"], check=True)
    return peer_python


def peer_versions(python: Path, packages: Sequence[str] = PEER_PACKAGES) -> dict[str, str]:
    """Installed versions of packages in the peer's environment."""
    code = (
        "import importlib.metadata as m, json, platform\n"
        "found = {d.metadata['Name'].replace('_', '-'): d.version for d in m.distributions()}\n"
        "print(json.dumps(found | {'python': platform.python_version()}))"
    )
    output = subprocess.run([python, "-P", "-c", code], check=True, capture_output=True, text=True, env=peer_environ())
    found = json.loads(output.stdout)
    names = {name: name.replace("_", "-") for name in ("python", *packages)}
    return {name: found[key] for name, key in names.items() if key in found}


def compare(tower: Tower, arguments: argparse.Namespace, peer_python: Path) -> dict:
    """Run every condition of a tower in every round, and summarise them."""
    with tempfile.TemporaryDirectory(prefix="clipsieve-drill-") as temporary:
        work = (arguments.work.absolute() if arguments.work else Path(temporary)) / tower.name
        images = link_images(arguments.images, work / "images", tower.num_images)
        calls: dict[str, Callable[[Path], dict]] = {
            PEER: lambda out: run_peer(tower, images, out, peer_python, arguments)
        }
        for precision, policy in product(arguments.precision.split(","), arguments.policies.split(",")):
            name = f"clipsieve {policy}" + (f", {precision}" if precision != "auto" else "")
            calls[name] = partial(run_clipsieve, tower, images, policy=policy, precision=precision)
        calls[FLOAT32] = partial(run_clipsieve, tower, images, policy="none", precision="fp32")
        rounds: dict[str, list[dict]] = {name: [] for name in calls}
        for number in range(arguments.rounds):
            names = [name for name in calls if name != FLOAT32 or number == 0]
            for name in names if number % 2 == 0 else reversed(names):
                out = work / f"{number}-{name.replace(' ', '-')}"
                out.mkdir(parents=True)
                result = calls[name](out)
                rounds[name].append(result)
                print(
                    f"{tower.name}, round {number + 1} of {arguments.rounds}, {name}: "
                    f"{result['images_per_second']:.1f} images/s, {result['start_s']:.1f} s to start, "
                    f"{result['precision']}",
                    file=sys.stderr,
                )
    return {
        "model": tower.name,
        "weights": "random" if tower.folder is None else "its own",
        "num_images": tower.num_images,
        "conditions": [summarise(name, values, rounds[PEER]) for name, values in rounds.items()],
    }


def summarise(name: str, rounds: list[dict], peer_rounds: list[dict]) -> dict:
    """Medians over rounds; the ratio is the median of the per-round ratios."""
    steady, whole = "images_per_second", "images_per_second_whole"

    def ratio(key: str) -> float:
        pairs = zip(rounds, peer_rounds, strict=False)
        return statistics.median(ours.get(key, ours[steady]) / peers[key] for ours, peers in pairs)

    return {
        "name": name,
        steady: statistics.median(result[steady] for result in rounds),
        "ratio_to_peer": ratio(steady),
        whole: statistics.median(result.get(whole, result[steady]) for result in rounds),
        "ratio_to_peer_whole": ratio(whole),
        "start_s": statistics.median(result["start_s"] for result in rounds),
        "rounds": rounds,
    }


def link_images(source: Path, folder: Path, num_images: int) -> Path:
    """Link the images of a folder repeatedly in a new folder; reads each once, so that none is slow the first time."""
    paths = sorted(path for path in source.iterdir() if path.suffix.lower() in (".jpeg", ".jpg"))
    if not paths:
        raise SystemExit(f"no JPEG files in {source}; give another --images folder")
    for path in paths:
        path.read_bytes()
    folder.mkdir(parents=True)
    for number in range(num_images):
        path = paths[number % len(paths)]
        (folder / f"{number:06d}-{path.name}").symlink_to(path.resolve())
    return folder


def run_clipsieve(tower: Tower, images: Path, out: Path, policy: str, precision: str) -> dict:
    """Embed with clipsieve, in its own process."""
    clipsieve = Path(sys.executable).with_name("clipsieve")
    command = [clipsieve, "embed", images, "--out", out / "store", *tower.clipsieve_arguments, "--policy", policy]
    command += ["--precision", precision]
    text, wall_s = run(command, out / "log.txt", dict(os.environ))
    done = re.search(r"^(\d+) of (\d+) images embedded", text, re.MULTILINE)
    rate = re.search(r"([\d.]+) images/s end to end on (\w+), after ([\d.]+) s to start", text)
    calibration = re.search(r"^calibration \d+ images, ([\d.]+) s", text, re.MULTILINE)
    if not done or not rate:
        raise SystemExit(f"clipsieve printed no rate:\n{text}")
    check_count("clipsieve", int(done[1]), tower.num_images)
    images_per_second = float(rate[1])
    last_run = json.loads((out / "store" / "stats.json").read_text())["last_run"]
    return {
        "images_per_second": images_per_second,
        "start_s": wall_s - tower.num_images / images_per_second,
        "wall_s": wall_s,
        "num_vectors": int(done[1]),
        "device": rate[2],
        "precision": last_run["precision"] or precision,
        "calibration_s": float(calibration[1]) if calibration else 0.0,
        "share_of_ideal": last_run["share_of_ideal"],
        "alone": last_run["images_per_second"],
    }


def run_peer(tower: Tower, images: Path, out: Path, python: Path, arguments: argparse.Namespace) -> dict:
    """Embed with the peer, in its own process."""
    job = {
        "model": tower.name,
        "folder": str(tower.folder) if tower.folder else None,
        "scratch": str(out),
        "arguments": {
            "input_dataset": str(images),
            "output_folder": str(out / "vectors"),
            "input_format": "files",
            "enable_text": False,
            "clip_model": f"open_clip:{tower.name}/given",
            "num_prepro_workers": arguments.workers,
            "batch_size": arguments.peer_batch_size,
        },
    }
    # -P, because this file has the same name as the peer's package
    command = [python, "-P", Path(__file__).resolve(), INSIDE, json.dumps(job)]
    _, wall_s = run(command, out / "log.txt", peer_environ())
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    check_count(PEER, report["num_vectors"], tower.num_images)
    batches = report["batches"]
    begun = batches[0]["start_time"]
    elapsed_s = batches[-1]["end_time"] - begun
    whole = tower.num_images / elapsed_s
    steady = whole
    if len(batches) > 1:
        num_steady = tower.num_images - batches[0]["sample_count"]
        steady = num_steady / (batches[-1]["end_time"] - batches[0]["end_time"])
    return {
        "images_per_second": steady,
        "images_per_second_whole": whole,
        "start_s": wall_s - tower.num_images / steady,
        "wall_s": wall_s,
        "num_vectors": report["num_vectors"],
        "device": report["device"],
        "precision": "fp32",
        "batches": [[batch["sample_count"], round(batch["end_time"] - begun, 3)] for batch in batches],
    }


def run(command: list, log: Path, environ: dict[str, str]) -> tuple[str, float]:
    """Run a command; returns its output, which is also kept in `log`, and its seconds."""
    started = time.perf_counter()
    with log.open("w+", encoding="utf-8") as file:
        words = [str(word) for word in command]
        code = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, env=environ).returncode
        wall_s = time.perf_counter() - started
        file.seek(0)
        text = file.read()
    if code:
        raise SystemExit(f"{shlex.join(words)} failed with exit code {code}:\n{text[-4000:]}")
    return text, wall_s


def peer_environ() -> dict[str, str]:
    """The environment without variables that would make the peer's Python use other packages."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def check_count(tool: str, found: int, expected: int) -> None:
    if found != expected:
        raise SystemExit(f"{tool} embedded {found} of {expected} images")


def inside_peer_env(job: dict) -> None:
    """Run the peer's command line in its environment, with a local model, and record its own timestamps."""
    import numpy as np
    import open_clip
    import torch
    from clip_retrieval import cli
    from clip_retrieval.clip_inference.logger import LoggerWriter

    scratch = Path(job["scratch"])
    give_model(open_clip, job, scratch)
    batches = []
    log = LoggerWriter.__call__

    def keep(self: LoggerWriter, stats: dict) -> None:
        batches.append(dict(stats))
        log(self, stats)

    LoggerWriter.__call__ = keep
    sys.argv = [PEER, "inference", *(f"--{name}={value}" for name, value in job["arguments"].items())]
    cli.main()
    vectors = [np.load(path) for path in Path(job["arguments"]["output_folder"]).glob("img_emb/*.npy")]
    report = {
        "batches": batches,
        "num_vectors": sum(int(np.isfinite(part).all(axis=1).sum()) for part in vectors),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }
    (scratch / "report.json").write_text(json.dumps(report), encoding="utf-8")


def give_model(open_clip: object, job: dict, scratch: Path) -> None:
    """Make open_clip load weights from a folder, or random weights, whatever tag is requested."""
    given: dict = {"pretrained": None}
    if job["folder"]:
        folder = Path(job["folder"])
        config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))
        named = scratch / f"{job['model']}.json"
        named.write_text(json.dumps(config["model_cfg"]), encoding="utf-8")
        open_clip.add_model_config(named)
        preprocess = config["preprocess_cfg"]
        given = {f"image_{key}": preprocess[key] for key in PREPROCESS if key in preprocess}
        given["pretrained"] = str(folder / "open_clip_model.safetensors")
    create = open_clip.create_model_and_transforms
    open_clip.create_model_and_transforms = lambda name, **asked: create(name, **{**asked, **given})


def environment(arguments: argparse.Namespace, peer_python: Path) -> dict:
    """The hardware, versions and command of this run, without paths of this machine."""
    from pipeline import __version__
    from pipeline.machine import cpu_name, num_cores

    return {
        "command": " ".join(["python", "tests/drills/clip_retrieval.py", *map(without_machine, sys.argv[1:])]),
        "date": date.today().isoformat(),
        "cpu": cpu_name(),
        "cores": num_cores(),
        "rounds": arguments.rounds,
        "clipsieve": {
            "version": __version__,
            "python": sys.version.split()[0],
            **{name: version(name) for name in OUR_PACKAGES},
        },
        PEER: {
            "version": PEER_VERSION,
            "preprocessing_workers": arguments.workers,
            **{name: value for name, value in peer_versions(peer_python).items() if name != PEER},
        },
    }


def without_machine(word: str) -> str:
    """A word of the command line, with paths reduced to their shared part or their last component."""
    option, equals, value = word.rpartition("=")
    value = value.replace(os.environ.get(SHARED) or str(ROOT.parent / "shared"), f"${SHARED}")
    return option + equals + (Path(value).name if Path(value).is_absolute() else value)


def print_table(results: dict) -> None:
    print("| model | condition | images/s | ratio | whole | ratio | start, s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for model in results["models"]:
        for condition in model["conditions"]:
            print(
                f"| {model['model']} | {condition['name']} "
                f"| {condition['images_per_second']:.1f} | {condition['ratio_to_peer']:.2f}x "
                f"| {condition['images_per_second_whole']:.1f} | {condition['ratio_to_peer_whole']:.2f}x "
                f"| {condition['start_s']:.1f} |"
            )


if __name__ == "__main__":
    if sys.argv[1:2] == [INSIDE]:
        inside_peer_env(json.loads(sys.argv[2]))
    else:
        main()
