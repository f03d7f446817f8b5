"""Damaged metadata costs no image: text, profiles, EXIF, comments and previews whose content or length is wrong."""

import random
import struct
import zlib

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from pipeline.pixels.decode import decode_all_but_jpegs, decode_batch, open_rgb
from pipeline.source.entry import ImageEntry
from tests.kit.containers import (
    jp2_with,
    jpeg_segment,
    jpeg_with,
    mutated,
    png_chunk,
    png_with,
    tiff_with,
    webp_chunks,
    webp_of,
)
from tests.kit.pixels import encoded, pixels_and_results, preprocess

# as in a decode task; here pytest would turn Pillow's warnings about metadata into errors
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

WANTED = preprocess(48, 64, resize_mode="squash")
NO_CRC = 0x12345678
XMP = b"<x:xmpmeta>some text</x:xmpmeta>"
PROFILE = bytes(range(256)) * 2
BLOCK = b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\x10" + bytes(16)
FAR = b"\xff\xff\xff\x0f"


def exif(orientation=None):
    tags = Image.Exif()
    tags[0x010F] = "maker"
    if orientation:
        tags[0x0112] = orientation
    return tags.tobytes()


def decoded(data):
    entry = ImageEntry("image", "memory:image", len(data), 0, data=data)
    pixels, [record] = pixels_and_results(decode_batch([entry], WANTED))
    return pixels[0], record


def image_of(seed=3):
    values = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(values.repeat(8, 0).repeat(8, 1))


IMAGE = image_of()


def assert_same_image(data, good):
    pixels, record = decoded(data)
    assert (record.status, record.error) == ("ok", None)
    assert (record.width, record.height) == (64, 48)
    np.testing.assert_array_equal(pixels, decoded(good)[0])


# --- PNG

BIG = zlib.compress(bytes(2_000_000))  # more than Pillow's limit on one text
PNG_CHUNKS = {
    "compressed text": png_chunk(b"zTXt", b"key\0\0" + BIG),
    "compressed international text": png_chunk(b"iTXt", b"key\0\1\0\0\0" + BIG),
    "80 MB of text": png_chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(1_000_000))) * 80,
    "large profile": png_chunk(b"iCCP", b"name\0\0" + BIG),
    "empty profile": png_chunk(b"iCCP", b""),
    "unknown compression": png_chunk(b"zTXt", b"key\0\7text"),
    "text with a wrong checksum": png_chunk(b"tEXt", b"key\0text", NO_CRC),
    "private chunk with a wrong checksum": png_chunk(b"prVt", b"data", NO_CRC),
    "EXIF with a wrong checksum": png_chunk(b"eXIf", exif(6)[6:], NO_CRC),
    "time, cut": png_chunk(b"tIME", b"\0", NO_CRC),
    "palette suggestion": png_chunk(b"sPLT", b"name", NO_CRC),
    "palette of an image without": png_chunk(b"PLTE", b"abc", NO_CRC),
    "resolution, cut": png_chunk(b"pHYs", b"\0"),
    "gamma, empty": png_chunk(b"gAMA", b""),
    "transparency, empty": png_chunk(b"tRNS", b""),
    "animation, empty": png_chunk(b"acTL", b""),
    "frame out of order": png_chunk(b"acTL", struct.pack(">II", 2, 0)) + png_chunk(b"fcTL", b"\0\0\0\7" + bytes(22)),
    "text shorter than its length": png_chunk(b"tEXt", b"key\0some longer text")[:-9],
    "text longer than its length": png_chunk(b"tEXt", b"key\0text") + b"more",
    "length beyond the file": b"\x7f\xff\xff\xff" + png_chunk(b"tEXt", b"key\0text")[4:],
    "name that is no name": png_chunk(b"t\xe9Xt", b"key\0text"),
}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("name", PNG_CHUNKS)
def test_a_png_with_damaged_or_huge_chunks(name, place):
    assert_same_image(png_with(IMAGE, **{place: PNG_CHUNKS[name]}), encoded(IMAGE, "PNG"))


def test_no_text_is_decompressed(monkeypatch):
    data = png_with(IMAGE, before=png_chunk(b"zTXt", b"key\0\0" + zlib.compress(b"text")))
    monkeypatch.setattr(zlib, "decompressobj", None)  # what Pillow uses for texts and profiles
    assert decoded(data)[1].status == "ok"


def test_a_png_that_is_cut_after_its_pixels():
    data = png_with(IMAGE, after=png_chunk(b"tEXt", b"key\0" + bytes(400)))
    for num_lost in (1, 8, 12, 13, 200):
        assert_same_image(data[:-num_lost], encoded(IMAGE, "PNG"))


def test_a_png_without_its_last_pixels_is_still_refused():
    data = encoded(IMAGE, "PNG")
    pixels, record = decoded(data[: data.index(b"IEND") - 30])
    assert (record.status, "truncated" in record.error) == ("undecodable", True)
    assert not pixels.any()


def test_pixels_after_other_chunks_do_not_continue_an_image():
    data = encoded(IMAGE, "PNG")
    begin, end = data.index(b"IDAT") + 4, data.rindex(b"IEND") - 8
    parts = [png_chunk(b"IDAT", data[begin : begin + 40]), png_chunk(b"IDAT", data[begin + 40 : end])]
    head, tail = data[: begin - 8], data[end + 4 :]
    assert_same_image(head + b"".join(parts) + tail, data)
    assert decoded(head + png_chunk(b"tEXt", b"key\0text").join(parts) + tail)[1].status == "undecodable"


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"eXIf", exif(3)[6:]),
        png_chunk(b"tEXt", b"Raw profile type exif\0\nexif\n" + f"{len(exif(3)):8}\n{exif(3).hex()}\n".encode()),
        png_chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="3"/>'),
    ],
    ids=["EXIF", "EXIF as text", "XMP"],
)
def test_rotation_counts_beside_damaged_chunks(chunk, place):
    turned = encoded(IMAGE.transpose(Image.Transpose.ROTATE_180), "PNG")
    assert_same_image(png_with(IMAGE, **{place: PNG_CHUNKS["large profile"] + chunk}), turned)


def test_rotation_in_compressed_text_does_not_count():
    text = zlib.compress(f"\nexif\n{len(exif(3)):8}\n{exif(3).hex()}\n".encode())
    data = png_with(IMAGE, before=png_chunk(b"zTXt", b"Raw profile type exif\0\0" + text))
    assert_same_image(data, encoded(IMAGE, "PNG"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_dropped_chunks_change_no_pixel_in_any_mode(mode):
    image = Image.fromarray(np.asarray(IMAGE.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else IMAGE
    image = image.quantize(8) if mode == "P" else image.convert(mode)
    options = {} if mode in ("LA", "RGBA") else {"transparency": (1, 2, 3) if mode == "RGB" else 1}
    assert_same_image(encoded(image, "PNG", icc_profile=PROFILE, dpi=(72, 72), **options), encoded(image, "PNG"))


def test_the_first_image_of_an_animated_png():
    for options in ({}, {"default_image": True}, {"disposal": 2, "blend": 1}):
        data = encoded(IMAGE, "PNG", save_all=True, append_images=[image_of(4)], **options)
        assert_same_image(data, encoded(IMAGE, "PNG"))


# --- JPEG

PREVIEW = encoded(IMAGE.resize((16, 12)), "JPEG")
JPEG_SEGMENTS = {
    "JFIF, cut": jpeg_segment(0xE0, b"JFIF"),
    "EXIF, empty": jpeg_segment(0xE1, b"Exif\0\0"),
    "EXIF, damaged": jpeg_segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\x05"),
    "EXIF that contains itself": jpeg_segment(
        0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\1\x87\x69\0\4\0\0\0\1\0\0\0\x08\0\0\0\x08"
    ),
    "XMP, damaged": jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe<"),
    "profile, empty": jpeg_segment(0xE2, b"ICC_PROFILE\0"),
    "profile, incomplete": jpeg_segment(0xE2, b"ICC_PROFILE\0\1\5data"),
    "list of images, damaged": jpeg_segment(0xE2, b"MPF\0garbage"),
    "list of images without entries": jpeg_segment(0xE2, b"MPF\0MM\0*\0\0\0\x08\0\1\xb0\1\0\4\0\0\0\1\0\0\0\2\0\0\0\0"),
    "Photoshop, cut in a name": jpeg_segment(0xED, BLOCK[:20]),
    "Photoshop, cut in a value": jpeg_segment(0xED, BLOCK[:30]),
    "Adobe, cut": jpeg_segment(0xEE, b"Adobe"),
    "comment with marks": jpeg_segment(0xFE, b"\xff\xd9\xff\xda"),
    "length too small": jpeg_segment(0xE5, bytes(60), 40),
    "length too large": jpeg_segment(0xE5, bytes(60), 90),
    "length beyond the file": jpeg_segment(0xE5, bytes(60), 60_000),
    "length of zero": jpeg_segment(0xE5, b"", 0),
    "preview, length too small": jpeg_segment(0xE1, b"Exif\0\0" + bytes(50) + PREVIEW, 40),
    "preview, length too large": jpeg_segment(0xE1, b"Exif\0\0" + bytes(50) + PREVIEW, 80 + len(PREVIEW)),
    "rubbish after a segment": jpeg_segment(0xE5, b"data") + b"rubbish",
}


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("name", JPEG_SEGMENTS)
def test_a_jpeg_with_damaged_segments(name, progressive):
    data = jpeg_with(IMAGE, JPEG_SEGMENTS[name], progressive=progressive)
    assert_same_image(data, encoded(IMAGE, "JPEG", progressive=progressive))


def test_rotation_counts_beside_a_damaged_segment():
    data = jpeg_with(IMAGE, jpeg_segment(0xE1, b"Exif\0\0" + exif(3)[6:]), JPEG_SEGMENTS["profile, empty"])
    upright = Image.fromarray(decoded(encoded(IMAGE, "JPEG"))[0]).transpose(Image.Transpose.ROTATE_180)
    np.testing.assert_array_equal(decoded(data)[0], np.asarray(upright))


@pytest.mark.parametrize("name", JPEG_SEGMENTS)
def test_a_jpeg_with_damaged_segments_and_the_torchvision_decoder(name):
    data = jpeg_with(IMAGE, JPEG_SEGMENTS[name], subsampling=0)
    entry = ImageEntry("image", "memory:image", len(data), 0, data=data)
    batch = decode_all_but_jpegs([entry], WANTED.model_copy(update={"decoder": "torchvision"}))
    assert batch.results[0].status == "ok"
    assert [bytes(left) for left in batch.jpegs.values()] in ([], [data])  # what is left has the file's own hash


# --- other formats


def webp(**options):
    return encoded(IMAGE, "WEBP", lossless=True, exif=exif(), xmp=XMP, icc_profile=PROFILE, **options)


def with_length(data, name, length, order):
    at = data.index(name) + 4
    return data[:at] + length.to_bytes(4, order) + data[at + 4 :]


WEBP_FILES = {
    "EXIF beyond the file": with_length(webp(), b"EXIF", 2**31 - 1, "little"),
    "EXIF too short": with_length(webp(), b"EXIF", 3, "little"),
    "profile beyond the file": with_length(webp(), b"ICCP", 2**31 - 1, "little"),
    "profile too short": with_length(webp(), b"ICCP", 3, "little"),
    "profile over the pixels": with_length(webp(), b"ICCP", len(PROFILE) + 300, "little"),
    "cut in its XMP": webp()[:-6],
    "all flags set": webp_of(
        [(name, b"\xff" + content[1:] if name == b"VP8X" else content) for name, content in webp_chunks(webp())]
    ),
    "no profile, but its flag": webp_of([(name, content) for name, content in webp_chunks(webp()) if name != b"ICCP"]),
    "file length too small": with_length(webp(), b"RIFF", 64, "little"),
}


@pytest.mark.parametrize("name", WEBP_FILES)
def test_a_webp_with_damaged_metadata(name):
    assert_same_image(WEBP_FILES[name], encoded(IMAGE, "WEBP", lossless=True))


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"save_all": True, "append_images": [image_of(4)]}])
def test_a_webp_without_its_last_pixels_is_still_refused(options):
    data = encoded(IMAGE, "WEBP", icc_profile=PROFILE, **options)
    begin = data.index(b"VP8 " if b"VP8 " in data else b"VP8L")
    end = begin + 8 + int.from_bytes(data[begin + 4 : begin + 8], "little")
    for num_lost in (2, 10, 100):
        assert decoded(data[: end - num_lost])[1].status == "undecodable"


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize(
    ("tag", "kind", "count", "value"),
    [
        (270, 2, 9999, FAR), (274, 3, 900, FAR), (274, 2, 4, b"text"), (282, 5, 1, bytes(4)), (296, 2, 4, b"text"),
        (305, 2, 2**32 - 1, FAR), (330, 4, 1, FAR), (700, 1, 4000, FAR), (34377, 7, 9999, FAR), (34665, 4, 1, FAR),
        (34675, 7, 5000, FAR), (34853, 4, 1, FAR), (65000, 99, 1, FAR),
    ],
)  # fmt: skip
def test_a_tiff_with_damaged_tags(tag, kind, count, value, compression):
    data = tiff_with(IMAGE, tag, kind, count, value, compression=compression)
    assert_same_image(data, encoded(IMAGE, "TIFF"))


def test_a_gif_with_a_damaged_comment():
    data = encoded(IMAGE, "GIF", comment=b"a comment, and more of it" * 4)
    at = data.index(b"!\xfe") + 2
    for length in (0, 1, 20, 99, 101, 255):
        assert_same_image(data[:at] + bytes([length]) + data[at + 1 :], data)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_an_avif_or_heic_with_damaged_exif(kind):
    pillow_heif.register_heif_opener()
    data = encoded(IMAGE, kind, exif=exif(), xmp=XMP, icc_profile=PROFILE)
    assert exif()[6:] in data
    assert_same_image(data.replace(exif()[6:], bytes(len(exif()) - 6)).replace(XMP, b"\xff" * len(XMP)), data)


@pytest.mark.parametrize(
    "box",
    [b"\0\0\0\x20xml " + bytes(8), b"\0\x50\0\0uuid" + bytes(16), b"\0\0\0\0xml ", b"\0\0\0\3xml text"],
    ids=["too long", "beyond the file", "to the end", "too short"],
)
def test_a_jpeg_2000_with_damaged_boxes(box):
    assert_same_image(jp2_with(IMAGE, box), encoded(IMAGE, "JPEG2000"))


# --- chance


def files_with_metadata():
    """Files with the part that is metadata, and whether other parts may move."""
    text = png_chunk(b"tEXt", b"key\0text") + png_chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(300)))
    text += png_chunk(b"iCCP", b"name\0\0" + zlib.compress(PROFILE)) + png_chunk(b"eXIf", exif()[6:])
    for place in ("before", "after"):
        yield place, png_with(IMAGE, **{place: text}), text, True
    segments = jpeg_segment(0xE1, b"Exif\0\0" + exif()[6:]) + jpeg_segment(0xE2, b"ICC_PROFILE\0\1\1" + PROFILE)
    segments += jpeg_segment(0xED, BLOCK) + jpeg_segment(0xFE, b"comment")
    yield "jpeg", jpeg_with(IMAGE, segments), segments, True
    yield "preview", *jpeg_with_preview(), True
    profile = b"ICCP" + struct.pack("<I", len(PROFILE)) + PROFILE
    yield "webp", webp(), profile, True
    yield "animated webp", webp(save_all=True, append_images=[image_of(4)]), profile, True
    yield "tiff", encoded(IMAGE, "TIFF", icc_profile=PROFILE), PROFILE, False
    comment = b"!\xfe\x64" + b"a comment" * 11 + b"!" + b"\0"
    yield "gif", encoded(IMAGE, "GIF", comment=b"a comment" * 11 + b"!"), comment, True
    yield "avif", encoded(IMAGE, "AVIF", exif=exif()), exif()[6:], False
    box = b"\0\0\0\x26uuid" + bytes(30)
    yield "jpeg 2000", jp2_with(IMAGE, box), box, True


def jpeg_with_preview():
    segment = jpeg_segment(0xE1, b"Exif\0\0" + bytes(50) + PREVIEW)
    return jpeg_with(IMAGE, segment), segment


FILES = {name: file for name, *file in files_with_metadata()}


@pytest.mark.parametrize("name", FILES)
def test_random_damage_to_metadata_costs_no_image(name):
    data, part, moves = FILES[name]
    begin = data.index(part)
    for number in range(100):
        assert_same_image(mutated(random.Random(f"{name} {number}"), data, begin, begin + len(part), moves), data)


@pytest.mark.parametrize("name", FILES)
def test_random_damage_anywhere_gives_an_image_or_a_reason(name):
    data, _, _ = FILES[name]
    for number in range(50):
        pixels, record = decoded(mutated(random.Random(f"{name} {number}"), data, 0, len(data)))
        assert record.status in ("ok", "undecodable", "too_large")
        assert (record.error is None) == (record.status == "ok")
        assert record.status == "ok" or not pixels.any()


def test_other_readers_take_the_same_images(tmp_path):
    (tmp_path / "image.png").write_bytes(png_with(IMAGE, before=PNG_CHUNKS["large profile"]))
    assert np.array_equal(np.asarray(open_rgb((tmp_path / "image.png").as_uri())), np.asarray(IMAGE))
