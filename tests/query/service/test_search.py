import httpx


def test_texts_and_images_of_the_store_are_found(service):
    answer = httpx.get(f"{service.url}/search", params={"text": "a dog", "k": 3})
    assert answer.status_code == 200
    found = answer.json()
    assert (found["query"], found["k"], found["num_images"]) == ("a dog", 3, 12)
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    assert {"text", "index", "metadata"} <= {
        one.split(";")[0].strip() for one in answer.headers["server-timing"].split(",")
    }
    best = found["hits"][0]
    alike = httpx.get(f"{service.url}/search", params={"like": best["id"], "k": 11}).json()
    assert best["id"] not in [hit["id"] for hit in alike["hits"]]
