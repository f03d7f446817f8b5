"""The recipe of the built-in `scenes` model.

`python -m pipeline.scenes.train --out DIR` trains a small CLIP on drawn scenes (`pipeline.scenes.collection`), measures
it on unseen scenes, and writes a directory that open_clip loads as `local-dir:DIR`. The loss is CLIP's contrastive loss
plus the losses of classifiers that are discarded after training (`pipeline.scenes.network`).
"""

import argparse
import json
import math
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pipeline.machine import cpu_name, num_cores, prepare_for_torch
from pipeline.measure.recall import first_hit_ranks, recall_metrics
from pipeline.scenes import collection
from pipeline.scenes.network import (
    SceneClassifiers,
    build_model,
    contrastive_loss,
    encode_captions,
    encode_pictures,
    model_config,
    scene_labels,
)


@dataclass(frozen=True)
class Recipe:
    """The settings of one training run."""

    steps: int = 1200
    batch_size: int = 128
    seed: int = 0
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 100
    report_every: int = 50
    evaluate_every: int = 400
    num_validation: int = 1000
    num_test: int = 1000


def vocabulary(tokenizer: open_clip.SimpleTokenizer) -> np.ndarray:
    """Return the sorted token ids that captions of scenes use, including padding."""
    captions = [
        collection.caption(scene, variant)
        for scene in collection.distinct_scenes("train", 500)
        for variant in range(collection.NUM_TEMPLATES)
    ]
    return np.unique(tokenizer(captions).numpy())


class SceneDataset(Dataset):
    """Training or validation examples by index, drawn on access.

    An example is (picture uint8 [3, size, size], compact token ids int64 [context], labels int64
    [places * attributes + 2]).
    """

    def __init__(self, split: str, count: int, seed: int, config: dict) -> None:
        self.split, self.count, self.seed = split, count, seed
        self.image_size = config["model_cfg"]["vision_cfg"]["image_size"]
        context_length = config["model_cfg"]["text_cfg"]["context_length"]
        self.tokenizer = open_clip.SimpleTokenizer(context_length=context_length)
        self.token_ids = vocabulary(self.tokenizer)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        scene = collection.make_scene(self.split, index, self.seed)
        picture = np.asarray(collection.draw(scene, self.image_size, seed=index))
        ids = self.tokenizer([collection.caption(scene, variant=index)]).numpy()[0]
        compact = np.searchsorted(self.token_ids, ids)
        return picture.transpose(2, 0, 1).copy(), compact, scene_labels(scene)


def learning_rate_at(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine decay to zero."""
    if step < recipe.warmup_steps:
        return recipe.learning_rate * (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * (1 + math.cos(math.pi * done)) / 2


def make_optimizer(modules: list[nn.Module], recipe: Recipe) -> torch.optim.AdamW:
    """AdamW with weight decay for the matrices of linear layers only."""
    named = [item for module in modules for item in module.named_parameters()]
    decays = [p for name, p in named if p.ndim >= 2 and "embedding" not in name]
    rest = [p for name, p in named if p.ndim < 2 or "embedding" in name]
    groups = [{"params": decays, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), eps=1e-6)


def recall(images: Tensor, captions: Tensor) -> dict[str, float]:
    """Recall in both directions from embeddings [count, embed], where row i matches row i only."""
    vectors = [F.normalize(side.float(), dim=-1).numpy() for side in (images, captions)]
    rows = np.arange(len(images))
    return recall_metrics(
        {
            "image_retrieval": first_hit_ranks(vectors[1], rows, vectors[0], rows),
            "text_retrieval": first_hit_ranks(vectors[0], rows, vectors[1], rows),
        }
    )


@torch.inference_mode()
def validate(model: open_clip.CLIP, dataset: SceneDataset) -> dict[str, float]:
    """Evaluate the model on the validation scenes during training."""
    loader = DataLoader(dataset, batch_size=125)
    pairs = [(encode_pictures(model, x)[0], encode_captions(model, ids)) for x, ids, _ in loader]
    return recall(*(torch.cat(side) for side in zip(*pairs, strict=True)))


def train(recipe: Recipe, config: dict) -> tuple[open_clip.CLIP, np.ndarray, list[dict]]:
    """Train the model.

    Returns:
        The model with its compact token table, the token ids of the table's rows, and the log.
    """
    torch.manual_seed(recipe.seed)
    dataset = SceneDataset("train", recipe.steps * recipe.batch_size, recipe.seed, config)
    validation = SceneDataset("validation", recipe.num_validation, recipe.seed, config)
    model = build_model(config, len(dataset.token_ids))
    width, grid_size = model.visual.conv1.out_channels, model.visual.grid_size[0]
    classifiers = SceneClassifiers(config["model_cfg"]["embed_dim"], width, grid_size)
    optimizer = make_optimizer([model, classifiers], recipe)
    log, start = [], time.monotonic()
    # A second process draws while this one computes.
    loader = DataLoader(dataset, recipe.batch_size, num_workers=1, prefetch_factor=8)
    for step, (pictures, ids, labels) in enumerate(loader):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, recipe)
        with torch.autocast("cpu", torch.bfloat16):
            images, patches = encode_pictures(model, pictures)
            captions = encode_captions(model, ids)
            contrast = contrastive_loss(images, captions, model.logit_scale)
            places = classifiers.embedding_loss(images, labels)
            loss = contrast + places + classifiers.patch_loss(patches, labels)
            loss = loss + classifiers.embedding_loss(captions, labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        last = step + 1 == recipe.steps
        if last or (step + 1) % recipe.report_every == 0:
            entry = {"step": step + 1, "seconds": round(time.monotonic() - start)}
            entry |= {"loss": loss.item(), "contrastive": contrast.item(), "image_places": places.item()}
            if last or (step + 1) % recipe.evaluate_every == 0:
                entry |= validate(model, validation)
            log.append({key: round(value, 4) for key, value in entry.items()})
            print(json.dumps(log[-1]), flush=True)
    return model, dataset.token_ids, log


def save(model: open_clip.CLIP, token_ids: np.ndarray, config: dict, out: Path) -> None:
    """Write the model in float16, with zero rows filling its token table up to the full vocabulary."""
    out.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    rows = state["token_embedding.weight"]
    table = torch.zeros(config["model_cfg"]["text_cfg"]["vocab_size"], rows.shape[1], dtype=rows.dtype)
    table[torch.from_numpy(token_ids)] = rows
    # Not `save_file`, which makes the file unreadable for other users.
    content = to_safetensors({**state, "token_embedding.weight": table})
    (out / "open_clip_model.safetensors").write_bytes(content)
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


@torch.inference_mode()
def evaluate(directory: Path, num_images: int) -> dict[str, float]:
    """Evaluate the written model, as loaded by open_clip, on the pictures of a written test collection."""
    name = f"local-dir:{directory}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    tokenizer = open_clip.get_tokenizer(name)
    model.eval()
    images, captions = [], []
    with tempfile.TemporaryDirectory() as folder:
        lines = collection.write_collection(Path(folder), num_images).read_text(encoding="utf-8").splitlines()
        for first in range(0, num_images, 100):
            paths, texts = zip(*(line.split("\t") for line in lines[first : first + 100]), strict=True)
            pictures = torch.stack([preprocess(Image.open(Path(folder) / path)) for path in paths])
            images.append(model.encode_image(pictures))
            captions.append(model.encode_text(tokenizer(list(texts))))
    return recall(torch.cat(images), torch.cat(captions))


def main(arguments: list[str] | None = None) -> None:
    """Train the built-in `scenes` model, evaluate it and write it to a directory."""
    defaults = Recipe()
    parser = argparse.ArgumentParser(prog="python -m pipeline.scenes.train", description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    for name in ("steps", "batch_size", "seed", "num_validation", "num_test"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(defaults, name))
    options = vars(parser.parse_args(arguments))
    out = options.pop("out")
    recipe, config = Recipe(**options), model_config()
    prepare_for_torch()
    start = time.monotonic()
    model, token_ids, log = train(recipe, config)
    seconds = time.monotonic() - start
    save(model, token_ids, config, out)
    results = evaluate(out, recipe.num_test)
    record = {
        "command": f"python -m pipeline.scenes.train --out DIR --steps {recipe.steps} --seed {recipe.seed}",
        "recipe": asdict(recipe),
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(seconds),
        "images_seen": recipe.steps * recipe.batch_size,
        "images_per_second": round(recipe.steps * recipe.batch_size / seconds, 1),
        "hardware": {"cpu": cpu_name(), "cores": num_cores(), "threads": torch.get_num_threads()},
        "versions": {name: version(name) for name in ("torch", "open_clip_torch", "numpy", "pillow")},
        "test": {"images": recipe.num_test, **{key: round(value, 4) for key, value in results.items()}},
        "log": log,
    }
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record["test"]), flush=True)


if __name__ == "__main__":
    main()
