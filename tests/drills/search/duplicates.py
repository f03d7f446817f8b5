"""How similar the copies of an image are to it, and how similar the nearest different image is: where to draw the line.

    python tests/drills/search/duplicates.py --json duplicates.json

Each image is changed in the ways in which copies on the web differ, and is decoded and embedded again. A threshold is a
cosine from which on `--unique` takes two images for near-duplicates. Of each threshold, the drill says which share of
the copies it finds, and of how many images it would hide the nearest different image. Nearest is among all images of
the collection: 7,000 photographs of Flickr8k, or 2,000 drawn scenes. The threshold is the lowest that hides at most one
image in a hundred of the `train` images, with the reference model unpruned and pruned; the `test` images measure it.

Flickr8k has a few near-duplicates of its own, such as two shots of one scene. They count as different images.
"""

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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
from tests.drills.index.measure import SHARED

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
    scenes = arguments.work / "scenes"
    if not (scenes / "test/captions.tsv").exists():
        for name in SETS:
            write_collection(scenes / name, 1000, split=name)
    flickr = {name: SHARED / "data" / f"flickr8k-{name}" for name in SETS}
    drawn = {name: scenes / name for name in SETS}
    collections = [("reference", "Flickr8k", flickr), ("scenes", "drawn scenes", drawn), ("scenes", "Flickr8k", flickr)]
    results = {"thresholds": THRESHOLDS, "images": arguments.images, "conditions": []}
    for model, collection, folders in collections:
        for policy in POLICIES:
            found = {"model": model, "policy": policy, "collection": collection}
            found |= measured(MODELS[model], policy, folders, arguments.images)
            print(json.dumps(found), flush=True)
            results["conditions"].append(found)
    results["chosen"] = chosen([one for one in results["conditions"] if one["model"] == "reference"])
    print(f"chosen on train: {results['chosen']}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500, help="images of each set to change")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "clipsieve-duplicates")
    parser.add_argument("--json", type=Path, help="write the results here")
    return parser.parse_args()


def measured(model: str, policy: str, folders: dict[str, Path], num_images: int) -> dict[str, object]:
    """Cosines of one model and policy on one collection, by set."""
    started = time.perf_counter()
    encoder = Encoder(load_model(ModelSource(model=model), "fp32", "cpu"), named_policy(policy))
    paths = {name: sorted(folder.rglob("*.jpg")) for name, folder in folders.items()}
    vectors_NE = embedded(encoder, (path.read_bytes() for name in SETS for path in paths[name]))
    found, first = {}, 0
    for name in SETS:
        num_all = len(paths[name])
        places = first + np.random.default_rng(0).permutation(num_all)[:num_images]
        own_NE = vectors_NE[first : first + num_all]
        cosines_NM = own_NE @ vectors_NE.T
        cosines_NM[np.arange(num_all), first + np.arange(num_all)] = -1
        nearest_N = cosines_NM.max(axis=1)
        found[name] = {"nearest different image": summary(nearest_N)}
        for change, (altered, options) in CHANGES.items():
            files = (saved(altered(open_rgb(paths[name][place - first].as_uri())), options) for place in places)
            copies_PE = embedded(encoder, files)
            found[name][change] = summary((copies_PE * vectors_NE[places]).sum(axis=1))
        first += num_all
    return {"images": len(vectors_NE), **found, "seconds": round(time.perf_counter() - started)}


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


def chosen(conditions: list[dict]) -> float:
    """The lowest threshold that hides few enough different images of `train`, under all conditions."""
    hidden = np.array([one["train"]["nearest different image"]["shares"] for one in conditions])
    return THRESHOLDS[int(np.argmax((hidden <= HIDDEN).all(axis=0)))]


if __name__ == "__main__":
    main()
