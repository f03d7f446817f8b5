"""JPEGs decoded on the encoder's device: which ones, to which pixels, and what happens to those it refuses."""

import hashlib
import io
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from pipeline.embedding import embed
from pipeline.errors import FingerprintMismatch
from pipeline.measure.parity import generated_photos, parity_cosines
from pipeline.model.encode import Encoder
from pipeline.model.load import load_model
from pipeline.model.spec import ModelSource
from pipeline.pixels.decode import decode_all_but_jpegs, decode_batch
from pipeline.pixels.nvjpeg import decode_jpegs, fit_tensors
from pipeline.pixels.to_device import DeviceLoader, decode_for
from pipeline.resample import resample
from pipeline.settings.embed import EmbedSettings
from pipeline.source.entry import ImageEntry
from pipeline.source.formats.folder import list_images
from pipeline.store.parts import embeddings_of, read_part
from tests.kit.containers import jpeg_segment, jpeg_with
from tests.kit.pixels import encoded, pixels_and_results, preprocess

ROTATED = Image.Exif()
ROTATED[0x0112] = 6
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
FULL = {"subsampling": 0, "quality": 95}


def entry_of(data, key="photo.jpg"):
    return ImageEntry(key, f"memory:{key}", len(data), 0, data=data)


def bad_jpeg(image):
    """A JPEG that Pillow opens but no decoder decodes: the counts of its first Huffman table are invalid."""
    data = bytearray(encoded(image, "JPEG", **FULL))
    counts = data.index(b"\xff\xc4") + 5
    data[counts : counts + 16] = b"\xff" * 16
    return bytes(data)


@pytest.fixture
def photo(make_image):
    return make_image(60, 50)


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return Encoder(load_model(ModelSource(model=tiny_model, decoder="torchvision"), "fp32", "cpu"), None)


# --- which images


@pytest.mark.parametrize(
    ("kind", "changes", "is_left"),
    [
        ("JPEG", FULL, True),
        ("JPEG", FULL | {"progressive": True}, True),
        ("JPEG", FULL | {"exif": Image.Exif()}, True),
        ("JPEG", {"subsampling": "4:2:2"}, False),
        ("JPEG", {"subsampling": "4:2:0"}, False),
        ("JPEG", FULL | {"exif": ROTATED}, False),
        ("JPEG", FULL | {"exif": b"Exif\0\0nonsense"}, True),
        ("JPEG", FULL | {"keep_rgb": True}, False),
        ("PNG", {}, False),
        ("WEBP", {"lossless": True}, False),
    ],
)
def test_upright_jpegs_with_full_chroma_are_left_to_the_device(photo, kind, changes, is_left):
    entries = [entry_of(encoded(photo, kind, **changes))]
    left = decode_all_but_jpegs(entries, preprocess(decoder="torchvision"))
    pixels, [record], jpegs = left.pixels, left.results, left.jpegs
    assert record.status == "ok"
    assert list(jpegs) == ([0] if is_left else [])
    assert len(pixels) == (0 if is_left else 1)
    assert decode_all_but_jpegs(entries, preprocess()).jpegs == {}
    by_pillow, [same] = pixels_and_results(decode_batch(entries, preprocess()))
    assert record == same
    if not is_left:
        np.testing.assert_array_equal(pixels, by_pillow)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_are_left_to_pillow(photo, mode):
    entries = [entry_of(encoded(photo.convert(mode), "JPEG"))]
    assert decode_all_but_jpegs(entries, preprocess(decoder="torchvision")).jpegs == {}


@pytest.mark.parametrize(("side", "is_left"), [(255, False), (256, True)])
def test_half_the_chroma_is_enough_if_resizing_hides_it(make_image, side, is_left):
    entries = [entry_of(encoded(make_image(300, side), "JPEG", subsampling="4:2:0"))]
    assert bool(decode_all_but_jpegs(entries, preprocess(decoder="torchvision")).jpegs) == is_left


def test_truncated_and_too_large_images_get_the_usual_status(photo):
    data = encoded(photo, "JPEG", **FULL)
    entries = [entry_of(data[: len(data) // 2], "cut"), entry_of(data, "large"), entry_of(data + b"more", "more")]
    wanted = preprocess(decoder="torchvision")
    left = decode_all_but_jpegs(entries, wanted, max_pixels=3000)
    assert [record.status for record in left.results] == ["undecodable", "ok", "ok"]
    assert list(left.jpegs) == [1]
    assert decode_all_but_jpegs(entries, wanted, max_pixels=2999).results[1].status == "too_large"


# --- pixels


@pytest.mark.parametrize("device", DEVICES)
def test_embeddings_match_open_clips_own_preprocessing(shared, device):
    source = ModelSource(model=f"local-dir:{shared / 'models' / 'lit-vit-ti-16'}", decoder="torchvision")
    loaded = load_model(source, "fp32", device)
    photos = list_images(shared / "data" / "photos-native")[0]
    assert len(decode_all_but_jpegs(photos, loaded.spec.preprocess).jpegs) > 200  # Pillow decodes the others
    cosines = parity_cosines(loaded, photos)
    assert len(cosines) == 300
    assert cosines.min() >= 0.999
    large = parity_cosines(loaded, list(generated_photos()))
    assert len(large) == 8
    assert large.min() >= 0.999


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_decodes_what_pillow_decodes(make_image, device):
    files = [encoded(make_image(40 + number, 50, number), "JPEG", **FULL) for number in range(5)]
    images = decode_jpegs([np.frombuffer(data, np.uint8) for data in files], torch.device(device))
    for data, image in zip(files, images, strict=True):
        assert image.device.type == device
        reference = np.asarray(Image.open(io.BytesIO(data))).astype(np.int16)
        assert np.abs(image.permute(1, 2, 0).cpu().numpy() - reference).max() <= (0 if device == "cpu" else 2)


# --- batches


@pytest.mark.parametrize("device", DEVICES)
def test_a_refused_jpeg_affects_no_other_image(make_image, tiny_model, device):
    encoder = Encoder(load_model(ModelSource(model=tiny_model, decoder="torchvision"), "fp32", device), None)
    files = [encoded(make_image(50, 40, number), "JPEG", **FULL) for number in range(3)]
    files[1:1] = [bad_jpeg(make_image(50, 40)), encoded(make_image(30, 30), "PNG")]
    entries = [entry_of(data, str(number)) for number, data in enumerate(files)]
    pixels, records = pixels_and_results(decode_for(encoder, entries))
    assert [(record.key, record.status) for record in records] == [
        ("0", "ok"), ("1", "undecodable"), ("2", "ok"), ("3", "ok"), ("4", "ok"),
    ]  # fmt: skip
    assert records[1].sha256
    assert pixels.device.type == device
    assert not pixels[1].any()
    for slot in (0, 2, 3, 4):
        alone = decode_for(encoder, entries[slot : slot + 1]).pixels
        assert torch.equal(alone[0], pixels[slot])


@pytest.mark.filterwarnings("ignore:::PIL")  # as in a decode task
@pytest.mark.parametrize("device", DEVICES)
def test_damaged_metadata_costs_no_image(make_image, tiny_model, device):
    encoder = Encoder(load_model(ModelSource(model=tiny_model, decoder="torchvision"), "fp32", device), None)
    image = make_image(50, 40)
    preview = encoded(make_image(20, 16), "JPEG")
    segments = [
        jpeg_segment(0xE2, b"ICC_PROFILE\0"),
        jpeg_segment(0xE1, b"Exif\0\0MM\0*"),
        jpeg_segment(0xE5, bytes(60), 40),
        jpeg_segment(0xE5, bytes(60), 200),
        jpeg_segment(0xE1, b"Exif\0\0" + bytes(50) + preview, 40),
        jpeg_segment(0xE1, b"Exif\0\0" + bytes(50) + preview, 80 + len(preview)),
    ]
    files = [encoded(image, "JPEG", **FULL), *(jpeg_with(image, segment, **FULL) for segment in segments)]
    entries = [entry_of(data, str(number)) for number, data in enumerate(files)]
    batch = decode_for(encoder, entries)
    assert [record.status for record in batch.results] == ["ok"] * 7
    assert [record.sha256 for record in batch.results] == [hashlib.sha256(data).hexdigest() for data in files]
    good, *others = batch.pixels.cpu().numpy().astype(np.int16)
    assert np.abs(np.stack(others) - good).max() <= 3  # some were decoded by Pillow


def test_large_jpegs_are_decoded_a_few_at_a_time(make_image, encoder, monkeypatch):
    monkeypatch.setattr("pipeline.pixels.to_device._PIXELS_AT_ONCE", 5000)
    sizes = []

    def decode(jpegs, device):
        sizes.append(len(jpegs))
        return decode_jpegs(jpegs, device)

    monkeypatch.setattr("pipeline.pixels.to_device.decode_jpegs", decode)
    files = [encoded(make_image(side, side), "JPEG", **FULL) for side in (50, 50, 10, 90, 40)]
    batch = decode_for(encoder, [entry_of(data, str(number)) for number, data in enumerate(files)])
    assert [record.status for record in batch.results] == ["ok"] * 5
    assert sizes == [2, 1, 1, 1]


def test_images_of_one_size_are_resized_together_and_keep_their_places(make_image, encoder, monkeypatch):
    monkeypatch.setattr("pipeline.pixels.to_device._RESIZED_AT_ONCE", 5000)
    shapes = []

    def fit(images, wanted):
        shapes.append(tuple(images.shape))
        return fit_tensors(images, wanted)

    monkeypatch.setattr("pipeline.pixels.to_device.fit_tensors", fit)
    sides = (50, 40, 50, 60, 40, 40, 40)
    files = [encoded(make_image(side, side, slot), "JPEG", **FULL) for slot, side in enumerate(sides)]
    entries = [entry_of(data, str(number)) for number, data in enumerate(files)]
    pixels = decode_for(encoder, entries).pixels
    assert shapes == [(2, 3, 50, 50), (3, 3, 40, 40), (1, 3, 40, 40), (1, 3, 60, 60)]
    for slot, entry in enumerate(entries):
        assert torch.equal(decode_for(encoder, [entry]).pixels[0], pixels[slot])


def test_batches_keep_their_order_and_an_error_ends_them(make_image, encoder):
    def half_decoded():
        for number in range(4):
            data = encoded(make_image(40, 40, number), "JPEG", **FULL)
            entries = [entry_of(data, f"{number}-{kind}") for kind in "ab"]
            yield replace(decode_all_but_jpegs(entries, encoder.spec.preprocess), cpu_s=float(number))
        raise OSError("the source is gone")

    batches = DeviceLoader(encoder, None).batches(half_decoded())
    for number in range(4):
        batch = next(batches)
        assert (batch.cpu_s, [result.key for result in batch.results]) == (number, [f"{number}-a", f"{number}-b"])
        assert torch.equal(batch.pixels[0], batch.pixels[1])
    with pytest.raises(OSError, match="the source is gone"):
        next(batches)


# --- a store


def parts_of(report):
    return [report.store.part_path(shard.ordinal) for shard in report.record.shards]


@pytest.mark.usefixtures("ray_session")
def test_a_store_with_the_torchvision_decoder(photos, make_image, tiny_model, tmp_path):
    source = shutil.copytree(photos, tmp_path / "photos")
    for number in range(6):
        make_image(45, 50 + number, 40 + number).save(source / f"full-{number}.jpg", **FULL)
    make_image(300, 280).save(source / "large.jpg", quality=95)  # Pillow decodes a draft of it
    (source / "full-3.jpg").write_bytes(bad_jpeg(make_image(50, 50)))
    settings = EmbedSettings(
        source=source, out=tmp_path / "a", model=tiny_model, precision="fp32", workers=1, batch_size=4,
        decoder="torchvision",
    )  # fmt: skip
    report = embed(settings)
    assert (report.num_images, report.failed) == (19, {"undecodable": 1})
    again = embed(settings.model_copy(update={"out": tmp_path / "b"}))
    pillow = embed(settings.model_copy(update={"out": tmp_path / "c", "decoder": "pillow"}))
    assert [path.read_bytes() for path in parts_of(report)] == [path.read_bytes() for path in parts_of(again)]
    spec, plain = report.record.encoder, pillow.record.encoder
    assert (spec.text_space, spec.preprocess.decoder) == (plain.text_space, "torchvision")
    assert spec.image_space != plain.image_space
    ids, ours = embeddings_of(pa.concat_tables(map(read_part, parts_of(report))))
    plain_ids, theirs = embeddings_of(pa.concat_tables(map(read_part, parts_of(pillow))))
    assert ids.tolist() == plain_ids.tolist()
    assert np.einsum("ne,ne->n", ours, theirs).min() >= 0.999
    assert not np.array_equal(ours, theirs)
    with pytest.raises(FingerprintMismatch, match="decoder torchvision"):
        embed(settings.model_copy(update={"decoder": "pillow"}))
    found = resample(report.view, 100, seed=0)
    assert (found.num_compared, found.num_equal, found.findings) == (18, 18, [])
