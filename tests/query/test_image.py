"""The image tower of a store: it makes the vectors that are in the store, or is refused."""

import io
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from indexer.build import build_index
from indexer.settings import IndexSettings
from pipeline.errors import ConfigError, FingerprintMismatch, InputError
from pipeline.model.load import load_model, with_policy
from pipeline.model.pruning.policy import named_policy
from pipeline.model.spec import ClaimedSpec, ModelSource
from pipeline.store.parts import embeddings_of
from pipeline.store.view import StoreView
from query.image import encode_image, image_encoder
from query.searcher import Searcher
from query.text import text_encoder
from tests.kit.adapters import write
from tests.kit.plain_embed import embed_plainly


@pytest.fixture(scope="module")
def view(tmp_path_factory, photos, tiny_model):
    """A store of photos, embedded with a policy."""
    return StoreView.open(embed_plainly(photos, tmp_path_factory.mktemp("images") / "store", tiny_model).root)


@pytest.fixture(scope="module")
def encoder(view):
    return image_encoder(view.record.encoder)


@pytest.fixture
def model(tmp_path, tiny_model):
    """The folder of a model that a test may change."""
    return shutil.copytree(tiny_model.removeprefix("local-dir:"), tmp_path / "model")


def change_images(folder):
    weights = load_file(folder / "open_clip_model.safetensors")
    weights["visual.proj"] = weights["visual.proj"] + 0.5
    save_file(weights, folder / "open_clip_model.safetensors")


def png_of(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_images_have_the_vectors_of_the_store(view, encoder, photos):
    stored = {}
    for _, table in view.parts(["id", "key", "status", "embedding"]):
        stored |= dict(zip(table["key"].to_pylist(), embeddings_of(table)[1], strict=True))
    assert len(stored) == 12
    assert encoder.spec.image_space == view.record.encoder.image_space
    for key, vector in stored.items():
        for image in (photos / key, str(photos / key), (photos / key).as_uri(), (photos / key).read_bytes()):
            found = encode_image(encoder, image)
            assert (found.shape, found.dtype) == ((32,), np.float32)
            np.testing.assert_allclose(found, vector, atol=1e-5)
        with Image.open(photos / key) as opened:
            np.testing.assert_allclose(encode_image(encoder, opened), vector, atol=1e-5)


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "LA", "1", "I;16", "CMYK"])
def test_opened_images_of_every_mode(mode, encoder, photos):
    with Image.open(photos / "photo-05.png") as opened:
        image = opened.convert("L").convert("I").convert("I;16") if mode == "I;16" else opened.convert(mode)
    vector = encode_image(encoder, image)
    assert image.mode == mode  # the caller's image is left as it is
    if mode != "CMYK":  # which PNG lacks
        np.testing.assert_allclose(vector, encode_image(encoder, png_of(image)), atol=1e-5)


def test_an_opened_image_is_turned_upright(encoder, photos):
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    with Image.open(photos / "photo-05.png") as opened:
        opened.save(file, "JPEG", exif=exif, quality=100)
    with Image.open(file) as opened:
        np.testing.assert_allclose(encode_image(encoder, opened), encode_image(encoder, file.getvalue()), atol=1e-5)


def test_images_that_cannot_be_decoded(encoder, tmp_path, photos):
    whole = (photos / "photo-02.jpg").read_bytes()
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) * 3 // 4])
    cases = {
        "text.jpg": "is undecodable: not an image",
        "cut.jpg": "is undecodable: ",
        "none.jpg": "is unreadable: No such file",
        ".": "is unreadable: ",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message) as raised:
            encode_image(encoder, tmp_path / name)
        assert str(tmp_path / name) in str(raised.value)
        assert "\n" not in str(raised.value)
    for data in (b"", b"not an image"):
        with pytest.raises(InputError, match="the image of the query is undecodable"):
            encode_image(encoder, data)
    with Image.open(tmp_path / "cut.jpg") as opened, pytest.raises(InputError, match="the image of the query cannot"):
        encode_image(encoder, opened)
    with pytest.raises(InputError, match="the image of the query cannot be decoded: "):
        encode_image(encoder, Image.new("RGB", (0, 0)))


def test_an_image_that_is_too_large_is_refused(encoder, monkeypatch):
    monkeypatch.setattr("pipeline.pixels.decode.DEFAULT_MAX_PIXELS", 100)
    with pytest.raises(InputError, match="the image of the query is too_large"):
        encode_image(encoder, Image.new("RGB", (1, 60_000)))


def test_threads_share_a_tower(encoder, photos):
    paths = sorted(photos.rglob("*.*g")) * 4
    alone = [encode_image(encoder, path) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda path: encode_image(encoder, path), paths))
    assert np.array_equal(alone, together)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("policy", [None, "fast"])
def test_the_record_decides_how_the_tower_runs(precision, policy, tiny_model, photos, tmp_path):
    source = ModelSource(
        model=tiny_model, image_size=48, adapter=write(tmp_path / "a", tiny_model, variant="image-only")
    )
    made = with_policy(load_model(source, precision, "cpu").spec, named_policy(policy) if policy else None)
    found = image_encoder(made)
    assert found.spec == made
    assert encode_image(found, photos / "photo-05.png").shape == (32,)


def test_changed_image_weights_are_refused(model):
    spec = load_model(ModelSource(model=f"local-dir:{model}"), "fp32", "cpu").spec
    image_encoder(spec)
    change_images(model)
    with pytest.raises(FingerprintMismatch, match=r"are in image space .*restore them, or embed again"):
        image_encoder(spec)


def test_a_changed_adapter_is_refused(tiny_model, tmp_path):
    source = ModelSource(model=tiny_model, adapter=write(tmp_path / "a", tiny_model, variant="image-only"))
    spec = load_model(source, "fp32", "cpu").spec
    write(tmp_path / "a", tiny_model, variant="shared")
    with pytest.raises(FingerprintMismatch, match="are in image space"):
        image_encoder(spec)


def test_the_model_of_imported_embeddings(tiny_model, model, photos):
    source = ModelSource(model=tiny_model)
    known = load_model(source, "fp32", "cpu").spec.text_space
    claim = ClaimedSpec(source=source, embedding_dim=32, precision="fp16", known_text_space=known)
    assert image_encoder(claim).spec.policy is None
    assert encode_image(image_encoder(claim), photos / "photo-05.png").shape == (32,)
    with pytest.raises(FingerprintMismatch, match="its weights changed"):
        image_encoder(claim.model_copy(update={"known_text_space": "0" * 64}))
    with pytest.raises(FingerprintMismatch, match="have 8 values, but those of model"):
        image_encoder(claim.model_copy(update={"known_text_space": None, "embedding_dim": 8}))


def test_what_cannot_be_loaded(view, model, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch finds no GPU"):
        image_encoder(view.record.encoder, "cuda")
    spec = load_model(ModelSource(model=f"local-dir:{model}"), "fp32", "cpu").spec
    shutil.rmtree(model)
    with pytest.raises(InputError, match="cannot load model"):
        image_encoder(spec)


def test_texts_and_images_search_a_store_in_int8(tmp_path, view, photos, tiny_model):
    store = embed_plainly(photos, tmp_path / "int8", tiny_model, precision="int8", policy="none")
    build_index(IndexSettings(store=store.root))
    searcher = Searcher(store.root)
    for key in ("photo-05.png", "more/photo-03.png", "photo-10.jpg"):
        best = searcher.search(image=photos / key, k=3)[0]
        assert (best.key, round(best.score, 3)) == (key, 1)
    in_float = view.record.encoder
    assert searcher.encoder.text_space == in_float.text_space
    texts = ["a cat", "a dog"]
    assert np.array_equal(
        text_encoder(searcher.encoder, "cpu").encode_texts(texts), text_encoder(in_float, "cpu").encode_texts(texts)
    )
    assert searcher.search("a cat", k=12)[0].score > -1
