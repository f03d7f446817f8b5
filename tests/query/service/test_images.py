"""Images and thumbnails of a store whose files changed after they were embedded."""

import io
import os
import signal
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image, ImageOps

from indexer import build_index
from tests.kit.plain_embed import embed_plainly
from tests.kit.service import running

PAGE = b"<!doctype html><script>alert(1)</script>"
AS_A_PAGE = {"Accept": "image/avif,image/webp,image/*,*/*;q=0.8"}
IMMUTABLE = "private, max-age=31536000, immutable"


def sideways(image):
    """A JPEG that is stored lying on its side, with its place."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "where I live"
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif, icc_profile=b"a profile", comment=b"a comment", quality=95)
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_image):
    folder = tmp_path_factory.mktemp("changing")
    photos = folder / "photos"
    photos.mkdir()
    make_image(80, 60, 1).save(photos / "good.jpg")
    (photos / "sideways.jpg").write_bytes(sideways(make_image(70, 50, 2)))
    make_image(60, 40, 3).save(photos / "scan.tif")
    make_image(60, 50, 4).save(photos / "really-png.jpg", "PNG")
    make_image(50, 60, 5).save(photos / 'héß"\r\nx: y".png')
    for number, name in enumerate(("gone.jpg", "garbage.jpg", "page.jpg", "both.gif"), 6):
        make_image(40, 40, number).save(photos / name)
    return folder


@pytest.fixture(scope="module")
def changed(folder, tiny_model):
    """A service over a folder of which some files changed, and the hits of all images by key."""
    photos = folder / "photos"
    store = embed_plainly(photos, folder / "store", tiny_model)
    build_index(store.root)
    (photos / "gone.jpg").unlink()
    (photos / "garbage.jpg").write_bytes(bytes(range(256)) * 4)
    (photos / "page.jpg").write_bytes(PAGE)
    (photos / "both.gif").write_bytes((photos / "both.gif").read_bytes() + PAGE)
    with running(store.root, flags=("--device", "cpu")) as service:
        found = httpx.get(f"{service.url}/search", params={"text": "a dog", "k": 20}).json()["hits"]
        yield service.url, {hit["key"]: hit for hit in found}


@pytest.fixture
def get(changed):
    url, hits = changed
    return lambda key, kind="thumb", **headers: httpx.get(url + hits[key][kind], headers=headers, timeout=60)


def opened(response):
    return Image.open(io.BytesIO(response.content))


def test_a_thumbnail_is_a_small_webp_that_browsers_keep(get):
    found = get("good.jpg")
    assert (found.status_code, found.headers["content-type"]) == (200, "image/webp")
    assert (opened(found).format, opened(found).size) == ("WEBP", (80, 60))
    assert found.headers["cache-control"] == IMMUTABLE
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["content-disposition"] == "inline; filename=\"good.webp\"; filename*=UTF-8''good.webp"


@pytest.mark.parametrize("kind", ["thumb", "image"])
def test_who_has_an_image_is_not_sent_it_again(get, kind):
    etag = get("good.jpg", kind).headers["etag"]
    for known in (etag, f'"other", W/{etag}', "*"):
        again = get("good.jpg", kind, **{"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert get("good.jpg", kind, **{"If-None-Match": '"other"'}).status_code == 200


def test_an_address_without_the_current_version_is_asked_for_again(changed):
    url, hits = changed
    for version in ("", "?v=older"):
        found = httpx.get(f"{url}/thumbs/{hits['good.jpg']['id']}{version}")
        assert found.headers["cache-control"] == "private, no-cache"


def test_an_image_is_the_file_itself(get, folder):
    found = get("good.jpg", "image")
    assert found.content == (folder / "photos" / "good.jpg").read_bytes()
    assert found.headers["content-type"] == "image/jpeg"


def test_thumbnails_are_upright_and_without_metadata(get, folder):
    thumb = opened(get("sideways.jpg"))
    upright = ImageOps.exif_transpose(Image.open(folder / "photos" / "sideways.jpg"))
    assert thumb.size == upright.size == (50, 70)
    assert not {"exif", "icc_profile", "comment"} & set(thumb.info)
    difference = [
        abs(a - b) for a, b in zip(thumb.resize((2, 2)).tobytes(), upright.resize((2, 2)).tobytes(), strict=True)
    ]
    assert max(difference) < 12


def test_what_browsers_do_not_show_becomes_a_jpeg(get):
    found = get("scan.tif", "image")
    assert (found.headers["content-type"], opened(found).format, opened(found).size) == ("image/jpeg", "JPEG", (60, 40))
    assert 'filename="scan.jpg"' in found.headers["content-disposition"]


def test_the_content_decides_the_type_and_not_the_name(get):
    found = get("really-png.jpg", "image")
    assert found.headers["content-type"] == "image/png"
    assert 'filename="really-png.png"' in found.headers["content-disposition"]


def test_a_key_adds_no_header(get):
    found = get('héß"\r\nx: y".png', "image")
    assert found.status_code == 200
    assert "x" not in found.headers
    assert found.headers["content-disposition"].startswith(
        "inline; filename=\"h___x__y.png\"; filename*=UTF-8''h%C3%A9%C3%9F%22x%3A%20y%22.png"
    ), "no control characters, which can hide the suffix"


@pytest.mark.parametrize("kind", ["thumb", "image"])
@pytest.mark.parametrize("key", ["page.jpg", "both.gif", "garbage.jpg"])
def test_a_page_is_never_served(get, key, kind):
    for accept in ({}, AS_A_PAGE, {"Accept": "text/html"}):
        found = get(key, kind, **accept)
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["content-type"] in ("image/webp", "image/gif", "application/problem+json")
        assert found.status_code == (200 if key == "both.gif" else 404)


@pytest.mark.parametrize("kind", ["thumb", "image"])
@pytest.mark.parametrize(
    ("key", "reason"), [("gone.jpg", "no longer there"), ("garbage.jpg", "not an image (1024 bytes)")]
)
def test_a_file_that_is_lost_gives_a_reason_to_programs(get, folder, key, reason, kind):
    found = get(key, kind)
    assert (found.status_code, found.headers["content-type"]) == (404, "application/problem+json")
    assert reason in found.json()["detail"]
    assert str(folder) not in found.text
    assert found.headers["vary"] == "Accept"


@pytest.mark.parametrize("kind", ["thumb", "image"])
def test_a_file_that_is_lost_gives_a_picture_to_pages(get, kind):
    found = get("gone.jpg", kind, **AS_A_PAGE)
    assert (found.status_code, found.headers["content-type"]) == (404, "image/webp")
    assert opened(found).size == {"thumb": (320, 240), "image": (640, 480)}[kind]
    assert found.headers["cache-control"] == "no-store"
    assert found.content != get("garbage.jpg", kind, **AS_A_PAGE).content  # each says its own reason


@pytest.mark.parametrize(
    ("place", "status"),
    [
        ("99", 404),
        ("9223372036854775807", 404),
        ("9223372036854775808", 422),
        ("-1", 422),
        ("x", 422),
        ("0?store=other", 404),
        ("..%2F..%2Fetc%2Fpasswd", 404),
    ],
)
@pytest.mark.parametrize("kind", ["thumbs", "images"])
def test_only_images_of_the_store_are_served(changed, kind, place, status):
    found = httpx.get(f"{changed[0]}/{kind}/{place}", headers=AS_A_PAGE)
    assert (found.status_code, found.headers["content-type"]) == (status, "application/problem+json")


def test_openapi_declares_what_images_answer(changed):
    paths = httpx.get(f"{changed[0]}/openapi.json").json()["paths"]
    thumb, image = (paths[f"/{kind}/{{id}}"]["get"] for kind in ("thumbs", "images"))
    assert set(thumb["responses"]["200"]["content"]) == {"image/webp"}
    assert set(image["responses"]["200"]["content"]) == {
        f"image/{kind}" for kind in ("jpeg", "png", "webp", "gif", "avif")
    }
    assert {"304", "404", "422"} <= set(thumb["responses"])
    assert set(thumb["responses"]["404"]["content"]) == {"application/problem+json", "image/webp"}
    [id_] = [one["schema"] for one in thumb["parameters"] if one["name"] == "id"]
    assert (id_["minimum"], id_["maximum"]) == (0, 2**63 - 1)


def children_of(pid):
    """The process ids of running children."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        except OSError:
            continue
        if int(lines["PPid"]) == pid and not lines["State"].startswith("Z"):
            found.append(int(lines["Pid"]))
    return found


def runs(pid):
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="processes are looked up in /proc")
def test_decode_processes_end_with_a_service_that_is_killed(photos, photos_store):
    with running(photos_store, flags=("--device", "cpu")) as service:
        assert httpx.get(f"{service.url}/thumbs/0").status_code == 200
        file = {"image": (photos / "photo-01.png").read_bytes()}
        assert httpx.post(f"{service.url}/search", files=file, timeout=60).status_code == 200
        children = children_of(service.process.pid)
        assert len(children) >= 2
        os.kill(service.process.pid, signal.SIGKILL)
        service.process.wait()
        while any(runs(pid) for pid in children):  # a test that hangs fails
            time.sleep(0.05)
