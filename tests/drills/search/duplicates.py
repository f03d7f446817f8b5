"""How similar the copies of an image are to it, and how similar the nearest different image is: where to draw the line.

    python tests/drills/search/duplicates.py --json duplicates.json

Some images are changed in the ways in which copies on the web differ, and are decoded and embedded again. A threshold
is a cosine from which on `--unique` takes two images for near-duplicates. Of each threshold, the drill says which share
of the copies it finds, and of how many images it would hide the nearest different image, among all of the collection:
7,000 photographs of Flickr8k at 224 x 224, 300 photographs at native size, 1,000 drawn scenes, or the 113,802 shared
image vectors, of which there are no copies. Two shots of one scene count as different images.

The threshold is the lowest that hides at most one in a hundred of the `train` images of Flickr8k, with the reference
model unpruned and pruned; the `test` images measure it. Other collections are split at random.

Vectors of unchanged images are kept in --work. A condition that is in the JSON file already is not measured again.
"""

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from pipeline.model.encode import Encoder
from pipeline.model.load import load_model
from pipeline.model.pruning.policy import named_policy
from pipeline.model.spec import ModelSource
from pipeline.pixels.decode import decode_batch, open_rgb
from pipeline.scenes.collection import write_collection
from pipeline.source.entry import ImageEntry
from tests.drills.index.measure import SHARED, real_vectors

SETS = ("train", "test")
BATCH = 64
HIDDEN = 0.01
THRESHOLDS = (*(round(0.80 + 0.01 * step, 2) for step in range(20)), 0.995)
MODELS = {"reference": f"local-dir:{SHARED / 'models/lit-vit-ti-16'}", "scenes": "scenes"}
POLICIES = ("none", "balanced")


def cropped(image: Image.Image) -> Image.Image:
    """Without a strip at each side, so that 5 % of width and height are gone."""
    across, down = image.width / 40, image.height / 40
    return image.crop((round(across), round(down), round(image.width - across), round(image.height - down)))


CHANGES: dict[str, tuple[Callable[[Image.Image], Image.Image], dict[str, object]]] = {
    "JPEG at quality 60": (lambda image: image, {"format": "JPEG", "quality": 60}),
    "half size": (lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS), {}),
    "cropped by 5 %": (cropped, {}),
    "grey": (ImageOps.grayscale, {}),
    "mirrored": (ImageOps.mirror, {}),
}


def main() -> None:
    arguments = parse_arguments()
    measures: dict[tuple[str, str, str], Callable[[], dict]] = {("reference", "none", "shared vectors"): of_vectors}
    for model, collection in (("reference", "Flickr8k"), ("scenes", "drawn scenes"), ("reference", "native size")):
        for policy in POLICIES:
            kept = arguments.work / f"{model}-{policy}-{collection}".replace(" ", "-")
            paths = paths_of(collection, arguments.work)
            measures[model, policy, collection] = partial(
                of_images, MODELS[model], policy, paths, arguments.images, kept
            )
    done = json.loads(arguments.json.read_text())["conditions"] if arguments.json and arguments.json.exists() else []
    for names, measure in measures.items():
        name = dict(zip(("model", "policy", "collection"), names, strict=True))
        if not any(name.items() <= one.items() for one in done):
            done.append(name | measure())
            print(json.dumps(done[-1]), flush=True)
        results = {"thresholds": THRESHOLDS, "chosen": chosen(done), "conditions": done}
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"chosen on train: {chosen(done)}")


def paths_of(collection: str, work: Path) -> dict[str, list[Path]]:
    """The images of a collection, by set."""
    if collection == "native size":
        paths = np.random.default_rng(0).permutation(sorted((SHARED / "data/photos-native").rglob("*.[jJ]*[gG]")))
        return {"train": list(paths[: len(paths) // 2]), "test": list(paths[len(paths) // 2 :])}
    if collection == "Flickr8k":
        return {name: sorted((SHARED / f"data/flickr8k-{name}").rglob("*.jpg")) for name in SETS}
    folders = {name: work / "scenes" / name for name in SETS}
    for name, folder in folders.items():
        if not (folder / "captions.tsv").exists():
            write_collection(folder, 500, split=name)
    return {name: sorted(folder.rglob("*.jpg")) for name, folder in folders.items()}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100, help="images of each set to copy")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "clipsieve-duplicates")
    parser.add_argument("--json", type=Path, help="write the results here")
    return parser.parse_args()


def of_vectors() -> dict[str, object]:
    """Cosines of the nearest different image among the shared vectors, for two random sets of 2,000."""
    started, vectors_NE = time.perf_counter(), real_vectors()[0]
    vectors_NE /= np.linalg.norm(vectors_NE, axis=1, keepdims=True)
    chosen = np.random.default_rng(0).permutation(len(vectors_NE))
    found = {
        name: {"nearest different image": summary(nearest(vectors_NE, chosen[2000 * number : 2000 * (number + 1)]))}
        for number, name in enumerate(SETS)
    }
    return {"images": len(vectors_NE), **found, "seconds": round(time.perf_counter() - started)}


def of_images(model: str, policy: str, paths: dict[str, list[Path]], num_copied: int, kept: Path) -> dict[str, object]:
    """Cosines of one model and policy on one collection, by set."""
    started = time.perf_counter()
    encoder = Encoder(load_model(ModelSource(model=model), "fp32", "cpu"), named_policy(policy))
    for name in SETS:
        if not kept.with_suffix(f".{name}.npy").exists():
            np.save(kept.with_suffix(f".{name}.npy"), embedded(encoder, (path.read_bytes() for path in paths[name])))
    vectors_NE = np.concatenate([np.load(kept.with_suffix(f".{name}.npy")) for name in SETS])
    found, first = {}, 0
    for name in SETS:
        places = first + np.arange(len(paths[name]))
        found[name] = {"nearest different image": summary(nearest(vectors_NE, places))}
        copied = np.random.default_rng(0).permutation(places)[:num_copied]
        for change, (altered, options) in CHANGES.items():
            images = (open_rgb(paths[name][place - first].as_uri()) for place in copied)
            copies_PE = embedded(encoder, (saved(altered(image), options) for image in images))
            found[name][change] = summary((copies_PE * vectors_NE[copied]).sum(axis=1))
        first += len(places)
    seconds = round(time.perf_counter() - started)
    return {
        "images": len(vectors_NE),
        "copied": min(num_copied, *map(len, paths.values())),
        **found,
        "seconds": seconds,
    }


def nearest(vectors_NE: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Largest cosine (float32 [n]) of each of some images to another one."""
    found = []
    for part in np.array_split(places, max(1, len(places) // 500)):
        cosines_PN = vectors_NE[part] @ vectors_NE.T
        cosines_PN[np.arange(len(part)), part] = -1
        found.append(cosines_PN.max(axis=1))
    return np.concatenate(found)


def saved(image: Image.Image, options: dict[str, object]) -> bytes:
    """An image as the bytes of a file; PNG, which changes nothing, unless another format is given."""
    file = io.BytesIO()
    image.save(file, **({"format": "PNG", "compress_level": 1} | options))
    return file.getvalue()


def embedded(encoder: Encoder, files: Iterator[bytes]) -> np.ndarray:
    """Unit vectors float32 [N, E] of files, decoded as `clipsieve embed` does."""
    parts, batch = [], []
    for number, data in enumerate(files):
        batch.append(ImageEntry(str(number), f"file:///{number}", len(data), 0, data=data))
        if len(batch) == BATCH:
            parts.append(encoder.encode(decode_batch(batch, encoder.spec.preprocess).pixels))
            batch = []
    if batch:
        parts.append(encoder.encode(decode_batch(batch, encoder.spec.preprocess).pixels))
    return np.concatenate(parts)


def summary(cosines_N: np.ndarray) -> dict[str, object]:
    """Percentiles of cosines, and the share that each threshold takes for near-duplicates."""
    percentiles = {f"p{p}": round(float(np.percentile(cosines_N, p)), 4) for p in (1, 5, 50, 95, 99)}
    shares = [round(float((cosines_N >= threshold).mean()), 4) for threshold in THRESHOLDS]
    return {**percentiles, "max": round(float(cosines_N.max()), 4), "shares": shares}


def chosen(conditions: list[dict]) -> float | None:
    """The lowest threshold that hides few enough different images of `train`."""
    nearest = [one["train"]["nearest different image"] for one in conditions if one["collection"] == "Flickr8k"]
    is_fine = np.array([[share <= HIDDEN for share in one["shares"]] for one in nearest]).all(axis=0)
    return THRESHOLDS[int(np.argmax(is_fine))] if is_fine.any() else None


if __name__ == "__main__":
    main()
