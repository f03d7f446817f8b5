"""Models with random weights whose image towers are open_clip's own, and whose text towers are as small as possible.

A text tower is not measured, and some are large (a vocabulary of 256,000) or need files from a network. Weights do not
change the speed of a tower.
"""

import json
from pathlib import Path
from typing import Any

import open_clip

from pipeline.model.load import LoadedModel, load_model
from pipeline.model.precision import Precision
from pipeline.model.spec import ModelSource
from query.bench.gpu.setup import Setup

_SMALL_TEXT = {"context_length": 8, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1}
_QUICK_VISION = {"layers": 4, "width": 128, "head_width": 64}


def random_model(setup: Setup, name: str, precision: Precision, image_size: int | None = None) -> LoadedModel:
    """Load a model by its open_clip name, with random weights.

    Args:
        setup: Where to load it. A quick run shrinks the towers that open_clip itself implements.
        name: One of open_clip's names.
        precision: Data type of weights and activations.
        image_size: Side of the input in pixels, if not the model's own.
    """
    config: dict[str, Any] = open_clip.get_model_config(name)
    config["text_cfg"] = dict(_SMALL_TEXT)
    if setup.is_quick and "timm_model_name" not in config["vision_cfg"]:
        config["vision_cfg"] |= _QUICK_VISION
    folder = setup.folder / "models"
    folder.mkdir(exist_ok=True)
    path = Path(folder / f"{name}-image-tower.json")
    path.write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(path)
    return load_model(ModelSource(model=path.stem, random_weights=True, image_size=image_size), precision, setup.device)
