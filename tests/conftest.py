"""Shared fixtures: a tiny CLIP on disk, a folder of photos, one Ray for the session, the shared data."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.model.pruning.policy import PruningPolicy
from pipeline.model.spec import EncoderSpec, ModelSource, Preprocess
from pipeline.source.access.credentials import KEYRING
from tests.kit.tiny import TINY_CONFIG

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses the session's Ray, and skip those that need a GPU where there is none."""
    needs_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if needs_gpu:
        import torch

        if not torch.cuda.is_available():
            for item in needs_gpu:
                item.add_marker(pytest.mark.skip(reason="torch sees no GPU"))
    for item in items:
        if "ray_session" in item.fixturenames:
            item.add_marker(pytest.mark.ray)


@pytest.fixture(autouse=True)
def forget_credentials() -> Iterator[None]:
    """No test knows the signed links of another one."""
    yield
    KEYRING.clear()


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep measurements of this machine in a folder of the tests, for their other processes, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPSIEVE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data; see CONTRIBUTING. Tests that need it are skipped if it is missing."""
    folder = Path(os.environ.get("CLIPSIEVE_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder}; set CLIPSIEVE_SHARED")
    return folder.resolve()


@pytest.fixture(scope="session")
def tiny_config() -> dict:
    """The tiny model's `open_clip_config.json`."""
    return json.loads(json.dumps(TINY_CONFIG))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The `local-dir:` name of a tiny CLIP with fixed random weights."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("tiny-model")
    with torch.random.fork_rng():
        torch.manual_seed(7)
        clip = open_clip.CLIP(**TINY_CONFIG["model_cfg"])
    save_file(clip.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(TINY_CONFIG))
    return f"local-dir:{folder}"


@pytest.fixture(scope="session")
def resnet_model(tmp_path_factory: pytest.TempPathFactory, tiny_config: dict) -> str:
    """The `local-dir:` name of a tiny CLIP whose image tower cannot be pruned."""
    import open_clip
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("resnet")
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
    config = {**tiny_config, "model_cfg": {**tiny_config["model_cfg"], "vision_cfg": vision}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(open_clip.CLIP(**config["model_cfg"]).state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


@pytest.fixture(scope="session")
def make_image() -> Callable[[int, int, int], Image.Image]:
    """Makes a smooth colourful RGB image of a given width and height. Each seed gives another image."""

    def make(width: int, height: int, seed: int = 0) -> Image.Image:
        random = np.random.default_rng(seed)
        coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = smooth + random.integers(-20, 21, smooth.shape, dtype=np.int16)
        return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))

    return make


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, make_image: Callable[..., Image.Image]) -> Path:
    """A folder of 12 small good images, in two formats and two folders. Read-only: copy it to change it."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for number in range(12):
        image = make_image(40 + 3 * number, 52 - 2 * number, number)
        place = folder / "more" if number % 3 == 0 else folder
        image.save(place / f"photo-{number:02d}.{'png' if number % 2 else 'jpg'}")
    return folder


@pytest.fixture(scope="session")
def spec() -> EncoderSpec:
    """The spec of an imaginary encoder with embeddings of size 4, for tests that need no model."""
    return EncoderSpec(
        source=ModelSource(model="local-dir:/models/none"),
        architecture={"embed_dim": 4, "vision_cfg": {"layers": 2}, "text_cfg": {"layers": 1}},
        weights_sha256="0" * 64,
        text_weights_sha256="1" * 64,
        image_weights_sha256="2" * 64,
        embedding_dim=4,
        precision="fp32",
        preprocess=Preprocess(height=8, width=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        policy=PruningPolicy(name="reference"),
    )


@pytest.fixture(scope="session")
def ray_session():
    """Ray on this machine, started once per session because a start takes seconds."""
    from pipeline.workers.session import ray_session

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)  # stay on this machine, even if the user works with a cluster
        with ray_session(None):
            yield
