"""What Prometheus reads: the names, and labels that never come from what is asked."""

import re

import httpx
from prometheus_client.parser import text_string_to_metric_families

from query.hits.hit import Timings
from query.service.metrics import BATCH_BUCKETS, BUCKETS, Metrics


def samples_of(text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_service_counts_and_times_its_searches(service):
    def read():
        return samples_of(httpx.get(f"{service.url}/metrics").text)

    [name, _] = [store["name"] for store in httpx.get(f"{service.url}/info").json()["stores"]]
    before = read()
    for text in ("a yellow zebra", "a yellow zebra", "a green zebra"):
        assert httpx.get(f"{service.url}/search", params={"text": text}).status_code == 200
    httpx.get(f"{service.url}/search", params={"text": "a zebra", "where": "nothing > 3"})
    text = httpx.get(f"{service.url}/metrics").text
    after = samples_of(text)

    def rise(metric, **labels):
        key = (metric, tuple(sorted(labels.items())))
        return after[key] - before.get(key, 0)

    assert rise("clipsieve_batch_size_count", store=name) == 3
    for stage in ("text", "filter", "index", "metadata"):
        assert rise("clipsieve_search_stage_duration_seconds_count", store=name, stage=stage) == 3
    assert after["clipsieve_index_vectors", (("store", name),)] == 12
    [info] = [
        dict(labels) for (metric, labels) in after if metric == "clipsieve_index_info" and ("store", name) in labels
    ]
    version = httpx.get(f"{service.url}/info").json()["stores"][0]["version"]
    assert info["fingerprint"] == version
    assert "zebra" not in text
    assert "nothing" not in text


def test_a_batch_counts_its_embedding_once():
    metrics = Metrics()
    metrics.batch("s", 5, [Timings(embed=30, index=1), Timings(embed=30, index=2)])
    found = samples_of(metrics.text().decode())
    stage = "clipsieve_search_stage_duration_seconds"
    assert found[f"{stage}_sum", (("stage", "text"), ("store", "s"))] == 0.03
    assert found[f"{stage}_count", (("stage", "index"), ("store", "s"))] == 2
    assert found["clipsieve_batch_size_sum", (("store", "s"),)] == 5


def test_only_the_index_that_answers_is_named():
    metrics = Metrics()
    metrics.index("s", "Flat", "a", 10)
    metrics.index("s", "IVF8,Flat", "b", 12)
    info = [key for key in samples_of(metrics.text().decode()) if key[0] == "clipsieve_index_info"]
    assert [dict(labels)["fingerprint"] for _, labels in info] == ["b"]


def test_names_and_buckets_are_as_prometheus_wants_them():
    families = list(text_string_to_metric_families(Metrics().text().decode()))
    assert all(re.fullmatch(r"clipsieve_[a-z_]+", family.name) for family in families)
    assert {family.name for family in families if family.type == "counter"} == {
        "clipsieve_rejected",
        "clipsieve_index_swaps",
        "clipsieve_index_swap_failures",
    }
    for buckets in (BUCKETS, BATCH_BUCKETS):
        assert list(buckets) == sorted(set(buckets))
