"""The interface of clip-retrieval's back end, as its client 2.45 uses it: JSON without a Content-Type."""

import base64
import json

import httpx
import pytest

from query import Searcher
from query.service.routes.knn import knn_hit

SENT = {
    "text": None,
    "image": None,
    "image_url": None,
    "embedding_input": None,
    "deduplicate": True,
    "use_safety_model": True,
    "use_violence_detector": True,
    "indice_name": "store",
    "use_mclip": False,
    "aesthetic_score": 9,
    "aesthetic_weight": 0.5,
    "modality": "image",
    "num_images": 5,
    "num_result_ids": 5,
}
"""All that the client sends; the values are its defaults."""


def post(service, **fields):
    return httpx.post(f"{service.url}/knn-service", content=json.dumps({**SENT, **fields}))


def test_a_text_finds_what_search_finds(service):
    answer = post(service, text="a dog")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    same = httpx.get(f"{service.url}/search", params={"text": "a dog", "k": 5, "unique_cosine": 0.94}).json()["hits"]
    assert answer.json() == [
        {name: hit[name] for name in ("id", "key", "caption", "width", "height")}
        | {"similarity": hit["score"], "url": f"{service.url}{hit['image']}"}
        for hit in same
    ]


def test_near_duplicates_stay_unless_they_are_left_out(service):
    kept = [len(post(service, text="a dog", num_result_ids=12, deduplicate=one).json()) for one in (False, True)]
    assert kept[1] < kept[0] == 12


def test_an_image_in_base64_is_found(service, photos):
    photo = photos / "photo-02.jpg"
    [best] = post(service, image=base64.b64encode(photo.read_bytes()).decode(), num_images=1, num_result_ids=1).json()
    assert best["key"] == photo.name
    assert best["similarity"] > 0.99


def test_a_vector_of_any_length_is_found(service, photos_store):
    with Searcher.open(photos_store, device="cpu") as searcher:
        opened, _ = searcher.current
        vector = opened.vectors(opened.ids_of([7]))[0]
    best, *_ = post(service, embedding_input=(3 * vector).tolist()).json()
    assert best["id"] == 7
    assert best["similarity"] == pytest.approx(1, abs=1e-3)


def test_answers_after_num_images_have_no_metadata(service):
    answers = post(service, text="a dog", num_images=2, num_result_ids=4, deduplicate=False).json()
    assert [sorted(one) == ["id", "similarity"] for one in answers] == [False, False, True, True]


def test_each_store_answers_by_its_name(service):
    names = httpx.get(f"{service.url}/indices-list").json()
    assert names == ["store", "again"]
    urls = [post(service, text="a dog", indice_name=name).json()[0]["url"] for name in (None, *names)]
    assert ["store=again" in url for url in urls] == [False, False, True]


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({}, 422, "expected one of text, image and embedding_input"),
        ({"text": "a dog", "embedding_input": [1.0]}, 422, "expected one of"),
        ({"image_url": "http://127.0.0.1/a.jpg"}, 422, "fetches no images"),
        ({"text": "a dog", "modality": "text"}, 422, "only vectors of images"),
        ({"text": "a dog", "use_mclip": True}, 422, "by the model of the store"),
        ({"text": "a dog", "num_images": 1001}, 422, "num_images: "),
        ({"text": "a dog", "num_result_ids": 3000}, 422, "num_result_ids: "),
        ({"text": "a" * 2001}, 422, "text: "),
        ({"text": "a dog", "k": 3}, 422, "k: "),
        ({"image": "a"}, 422, "image: base64"),
        ({"image": "bm8gaW1hZ2U="}, 422, "image"),
        ({"embedding_input": [1.0, 2.0]}, 422, "the vector has the shape (2,)"),
        ({"embedding_input": [float("nan")]}, 422, "embedding_input.0: "),
        ({"text": "a dog", "indice_name": "../store"}, 404, "there is no store"),
    ],
)
def test_what_would_change_the_answer_is_refused(service, fields, status, said):
    answer = post(service, **fields)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert said in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_not_a_query_is_refused(service, body):
    assert httpx.post(f"{service.url}/knn-service", content=body).status_code == 422


def test_the_url_is_the_column_url_else_a_public_uri_else_an_address_of_the_service():
    hit = {"id": 3, "score": 0.5, "image": "/prefix/images/3?v=1", "caption": "", "key": "", "width": 1, "height": 1}
    ways = [("https://a/1.jpg", "s3://b/1.jpg"), (None, "s3://b/1.jpg"), (None, None), ("javascript:alert(1)", None)]
    urls = [knn_hit({**hit, "uri": uri, "columns": {"url": url}}, "http://host/prefix/")["url"] for url, uri in ways]
    assert urls == ["https://a/1.jpg", "s3://b/1.jpg", *["http://host/prefix/images/3?v=1"] * 2]
