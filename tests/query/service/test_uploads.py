"""`POST /search`: images, vectors and queries in a body, good ones and bad ones."""

import http.client
import io

import httpx
import pytest
from PIL import Image

from query import Searcher
from tests.kit.service import running

PNG_OF_100_MILLION = Image.new("1", (10_000, 10_000))


@pytest.fixture
def send(service):
    return lambda **body: httpx.post(f"{service.url}/search", timeout=60, **body)


def detail(answer):
    """What a problem says, on one line."""
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()["detail"]
    assert "\n" not in found
    return found


@pytest.mark.parametrize("name", ["photo-01.png", "photo-02.jpg", "more/photo-03.png"])
def test_an_image_of_the_store_finds_itself_first(send, photos, name):
    found = send(files={"image": ("any name.txt", (photos / name).read_bytes())}, data={"k": "3"}).json()
    assert found["query"] == "an image"
    assert (len(found["hits"]), found["hits"][0]["key"]) == (3, name)
    assert found["hits"][0]["score"] == pytest.approx(1, abs=1e-4)


def test_a_form_can_hold_all_that_an_address_can(send, service, photos):
    image = {"image": (photos / "photo-01.png").read_bytes()}
    fields = {"text": "a dog", "k": "2", "offset": "1", "where": ["width > 45", "width < 70"], "unique": "true"}
    found = send(files=image, data={**fields, "store": "again"}).json()
    assert (found["query"], found["store"], found["offset"]) == ("a dog + an image", "again", 1)
    assert found["hits"]
    assert all(45 < hit["width"] < 70 for hit in found["hits"])


def test_a_form_whose_file_was_not_chosen_asks_for_the_rest(send, service):
    part = b'--a\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    body = b"".join(part % field for field in ((b"like", b"0"), (b"like", b"1"), (b'image"; filename="', b"")))
    answer = send(content=body + b"--a--", headers={"Content-Type": "multipart/form-data; boundary=a"})
    got = httpx.get(f"{service.url}/search", params={"like": [0, 1]})
    assert answer.json() | {"timings_ms": None} == got.json() | {"timings_ms": None}


def test_json_is_the_same_query_as_an_address(send, service):
    query = {"text": "a dog", "k": 4, "where": ["width > 45"], "template": ["a photo of {}"]}
    posted, got = send(json=query).json(), httpx.get(f"{service.url}/search", params=query).json()
    assert posted | {"timings_ms": None} == got | {"timings_ms": None}


def test_a_vector_finds_the_image_it_is_of(send, photos_store):
    with Searcher.open(photos_store, device="cpu") as searcher:
        [vector_E] = searcher.current[0].vectors([3])
    vector = [7.0 * float(one) for one in vector_E]
    found = send(json={"vector": vector, "k": 1}).json()
    assert found["hits"][0]["id"] == 3
    assert found["hits"][0]["score"] == pytest.approx(1, abs=1e-4)


BAD_JSON = {
    "no JSON": (b'{"text": "a"', "Invalid JSON"),
    "a lone surrogate": (b'{"text": "\\ud800"}', "Invalid JSON"),
    "a lone surrogate as a name": (b'{"\\udfff": 1}', "Invalid JSON"),
    "no UTF-8": (b'{"text": "\xff"}', "Invalid JSON"),
    "NaN": (b'{"vector": [NaN]}', "vector.0: input should be a finite number"),
    "infinity": (b'{"vector": [-Infinity]}', "vector.0: input should be a finite number"),
    "too much for float32": (b'{"vector": [' + b"1e308," * 31 + b"1]}", "zero or not finite"),
    "a zero vector": (b'{"vector": [' + b"0," * 31 + b"0]}", "zero or not finite"),
    "a huge number": (b'{"k": ' + b"9" * 10_000 + b', "text": "a"}', "Invalid JSON"),
    "a huge id": (b'{"like": [' + b"9" * 30 + b"]}", "like.0: input should be less than or equal to"),
    "deep nesting": (b'{"text": ' + b"[" * 10_000, "Invalid JSON: recursion limit exceeded"),
    "a list": (b"[]", "should be an object"),
    "nothing": (b"", "Invalid JSON"),
    "nothing asked": (b"{}", "nothing is asked"),
    "an unknown name": (b'{"texts": "a"}', "texts: extra inputs are not permitted"),
    "a vector of the wrong width": (b'{"vector": [1, 2, 3]}', "the vector has the shape (3,)"),
    "an empty vector": (b'{"vector": []}', "the vector has the shape (0,)"),
    "two errors": (b'{"k": 0, "offset": -1}', "(and 1 more)"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_bad_json_is_refused_in_one_line(send, case):
    body, reason = BAD_JSON[case]
    answer = send(content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert reason in detail(answer)


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "image/png"])
def test_other_types_are_refused(send, kind):
    answer = send(content=b'{"text": "a"}', headers={"Content-Type": kind} if kind else {})
    assert answer.status_code == 415
    assert "expected application/json or multipart/form-data" in detail(answer)


def test_the_type_of_a_body_can_have_parameters(send):
    answer = send(content=b'{"text": "a"}', headers={"Content-Type": "Application/JSON; charset=utf-8"})
    assert answer.status_code == 200


def jpeg():
    file = io.BytesIO()
    Image.effect_noise((200, 200), 90).save(file, "JPEG")
    return file.getvalue()


def bomb():
    file = io.BytesIO()
    PNG_OF_100_MILLION.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("files", "status", "reason"),
    [
        ({"image": ("a.jpg", b"")}, 422, "the image cannot be decoded: not an image (0 bytes); send another file"),
        ({"image": ("a.png", b"no image")}, 422, "the image cannot be decoded: not an image (8 bytes)"),
        ({"image": ("a.jpg", jpeg()[:5_000])}, 422, "the file is truncated"),
        ({"image": ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>")}, 422, "not an image"),
        ({"image": ("a.png", bomb())}, 413, "10000 x 10000 pixels, the limit is 50000000; send a smaller one"),
        ({"other": ("a.png", b"x")}, 422, "expected it in the field 'image'"),
        ([("image", ("a", b"x")), ("image", ("b", b"x"))], 422, "Too many files"),
        ({"image": (None, "text")}, 422, "image: expected a file, found a text"),
        ({"text": (None, "x" * 10_000)}, 422, "Part exceeded maximum size"),
        ([("like", (None, "1"))] * 200, 422, "Too many fields"),
        ({"k": (None, "many")}, 422, "k: input should be a valid integer"),
    ],
)
def test_a_bad_form_is_refused_in_one_line(send, files, status, reason):
    answer = send(files=files)
    assert answer.status_code == status
    assert reason in detail(answer)


def form_of_text(text):
    return b'--a\r\nContent-Disposition: form-data; name="text"\r\n\r\n' + text + b"\r\n--a--"


FIELD_K = b'--a\r\nContent-Disposition: form-data; name="k"\r\n\r\nx\r\n--a--'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"--a--"),
        ("multipart/form-data; boundary=a", b"nothing of the kind"),
        ("multipart/form-data; boundary=a", b"--a\r\n\r\nx\r\n--a--"),
        (f"multipart/form-data; boundary={'a' * 5000}", b"--a"),
        ("multipart/form-data; boundary=a; charset=nothing", FIELD_K),
        # codecs of Python that raise other errors than for text
        ("multipart/form-data; boundary=a; charset=undefined", form_of_text(b"dog")),
        ("multipart/form-data; boundary=a; charset=idna", form_of_text(b"a..b")),
    ],
)
def test_a_body_that_is_not_a_form_is_refused(send, kind, body):
    answer = send(content=body, headers={"Content-Type": kind})
    assert answer.status_code == 422
    assert detail(answer)


def test_a_vector_and_an_image_are_not_one_query(send, photos):
    answer = send(files={"image": (photos / "photo-01.png").read_bytes()}, data={"vector": "1"})
    assert (answer.status_code, detail(answer)) == (422, "vector: extra inputs are not permitted")


@pytest.fixture(scope="module")
def strict(photos_store):
    with running(photos_store, flags=("--device", "cpu", "--max-upload", "20000", "--max-pixels", "1000")) as found:
        yield found


@pytest.mark.parametrize("says_size", [True, False])
@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=a", "application/json"])
def test_bytes_are_counted_as_they_arrive(strict, kind, says_size):
    start = b'--a\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    parts = [start if "multipart" in kind else b'{"text": "', *[b"x" * 1000] * 30]
    body = b"".join(parts) if says_size else iter(parts)
    answer = httpx.post(f"{strict.url}/search", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 413
    assert "20000" in detail(answer)


def test_pixels_are_counted(strict, photos):
    answer = httpx.post(f"{strict.url}/search", files={"image": (photos / "photo-01.png").read_bytes()})
    assert answer.status_code == 413
    assert "the limit is 1000" in detail(answer)


def test_a_client_that_leaves_during_an_upload_is_no_error(strict):
    host, port = strict.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port))
    connection.putrequest("POST", "/search")
    connection.putheader("Content-Type", "multipart/form-data; boundary=a")
    connection.putheader("Content-Length", "5000")
    connection.endheaders(b'--a\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nx')
    connection.close()
    assert httpx.post(f"{strict.url}/search", json={"text": "a"}, timeout=60).status_code == 200
    assert "Traceback" not in strict.log.read_text()


def test_a_form_may_say_that_it_is_in_utf_8(send):
    kind = 'multipart/form-data; charset="UTF-8"; boundary=a'
    found = send(content=form_of_text("ein Bär".encode()), headers={"Content-Type": kind}).json()
    assert found["query"] == "ein Bär"


@pytest.mark.parametrize(
    "body",
    ["{" + ",".join(f'"{i:x}":1' for i in range(150_000)) + "}", '{"text": "a dog", "like": ' + "[" * 100_001],
    ids=["fields", "lists"],
)
@pytest.mark.parametrize("path", ["/search", "/knn-service"])
def test_values_of_a_body_are_counted_before_they_are_read(service, path, body):
    answer = httpx.post(f"{service.url}{path}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert "100000 values" in detail(answer)


@pytest.mark.parametrize(
    "query",
    [
        {"text": " + ".join(f'"{number}"' for number in range(33))},
        {"text": '"a" + "b" + "c"', "template": [f"{number} {{}}" for number in range(11)]},
        {"text": "a" * 2000, "template": ["{}" * 30]},
    ],
    ids=["terms", "templates", "characters"],
)
def test_what_would_take_long_to_embed_is_refused(send, query):
    answer = send(json=query)
    assert answer.status_code == 422
    assert "32" in detail(answer)


@pytest.mark.parametrize("where", ["uri like 'file:%'", "key = 'a' and not URI is null", "\"uri\" > 'a'"])
def test_no_condition_tells_where_the_images_are(send, service, where):
    answer = send(json={"text": "a dog", "where": [where]})
    assert (answer.status_code, "conditions on uri" in detail(answer)) == (422, True)
    assert httpx.get(f"{service.url}/?text=dog", params={"where": where}).status_code == 422
    assert all("uri" not in store["columns"] for store in httpx.get(f"{service.url}/info").json()["stores"])


def test_a_condition_may_hold_a_text_like_uri(send):
    assert send(json={"text": "a dog", "where": ["caption like '%uri%' or key = 'it''s uri'"]}).status_code == 200


def test_openapi_declares_both_bodies(service):
    post = httpx.get(f"{service.url}/openapi.json").json()["paths"]["/search"]["post"]
    content = post["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data"}
    json_fields, form_fields = (content[kind]["schema"]["properties"] for kind in content)
    assert set(json_fields) - set(form_fields) == {"vector"}
    assert form_fields["image"]["format"] == "binary"
    assert {"404", "409", "413", "415", "422"} <= set(post["responses"])
    for example in content["application/json"]["examples"].values():
        assert httpx.post(f"{service.url}/search", json=example["value"], timeout=60).status_code == 200
