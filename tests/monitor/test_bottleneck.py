"""Where the time goes: from commit markers to rates, bound and sentence."""

import pytest

from pipeline.monitor.bottleneck import summarize
from pipeline.store.records import CommitMarker


def shard(num_images=100, **timings):
    return CommitMarker(
        ordinal=0,
        shard_id="x",
        fingerprint="y",
        num_images=num_images,
        num_ok=num_images,
        failed={},
        sha256="0",
        num_bytes=1,
        timings_s=timings,
        finished_at="then",
    )


def test_decoding_and_encoding_share_the_cores():
    # 200 images: 2 s of CPU time decoding, 6 s encoding; 2 cores, 5 s elapsed
    stats = [shard(decode_cpu_s=1, encode_cpu_s=3, encode_s=3)] * 2
    summary = summarize(stats, 5.0, num_workers=2, num_cpus=2, num_gpus=0, has_policy=False)
    assert summary["images_per_second"] == {"end_to_end": 40, "decode": 200, "encode": pytest.approx(200 / 3)}
    assert summary["share_of_ideal"] == pytest.approx(40 / 50)
    assert summary["seconds"]["decode_cpu_s"] == 2
    assert summary["bound_by"] == "encode"
    assert summary["sentence"] == (
        "encode-bound: 2 cores could decode 200 images/s or encode 67 images/s, but not both at once; "
        "pruning, more cores or a GPU will help"
    )


def test_a_gpu_that_waits_for_cores():
    # 1,000 images in 2.5 s: 16 cores spent 32 s decoding, the GPU 0.5 s
    stats = [shard(num_images=1000, decode_cpu_s=32, encode_s=0.5, decode_wait_s=2)]
    summary = summarize(stats, 2.5, num_workers=1, num_cpus=16, num_gpus=1, has_policy=True)
    assert summary["images_per_second"] == {"end_to_end": 400, "decode": 500, "encode": 2000}
    assert summary["share_of_ideal"] == pytest.approx(400 / 500)
    assert summary["sentence"] == (
        "decode-bound: 16 cores can decode 500 images/s, the encoder could do 2,000; pruning will not help without "
        "more cores or smaller images"
    )


def test_a_gpu_that_is_busy():
    stats = [shard(num_images=1000, decode_cpu_s=16, encode_s=4, transfer_s=0.1)]
    summary = summarize(stats, 2.1, num_workers=2, num_cpus=64, num_gpus=2, has_policy=True)
    assert (summary["bound_by"], summary["images_per_second"]["encode"]) == ("encode", 500)
    assert summary["sentence"].endswith("64 cores could decode 4,000; a sharper policy or more GPUs will help")


@pytest.mark.parametrize(("stage", "timings"), [("write", {"write_s": 3}), ("transfer", {"transfer_s": 3})])
def test_runs_bound_by_transfer_or_writing(stage, timings):
    stats = [shard(decode_cpu_s=0.1, encode_cpu_s=1, encode_s=1, **timings)]
    summary = summarize(stats, 5.0, num_workers=1, num_cpus=2, num_gpus=0, has_policy=False)
    assert summary["bound_by"] == stage
    assert summary["sentence"].startswith(f"{stage}-bound: most of the time goes into")


def test_a_run_that_had_nothing_to_do():
    summary = summarize([], 0.5, num_workers=2, num_cpus=2, num_gpus=0, has_policy=True)
    assert summary["num_images"] == 0
    assert "images_per_second" not in summary
