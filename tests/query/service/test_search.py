"""`GET /search`, and what `/openapi.json` says of it and of the others."""

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


def test_the_openapi_document_describes_every_operation_field_and_problem(service):
    document = httpx.get(f"{service.url}/openapi.json").json()
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert {"search", "search_with_body", "compare", "image", "thumb"} <= {one["operationId"] for one in operations}
    for operation in operations:
        assert operation["summary"]
        assert operation["description"]
        for status, response in operation["responses"].items():
            if status >= "400":
                schema = response["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}
    schemas = document["components"]["schemas"]
    assert set(schemas["Problem"]["properties"]) == {"title", "status", "detail"}
    assert all(schemas["PairAnswer"]["properties"][name]["description"] for name in ("moved", "in_first", "in_second"))
