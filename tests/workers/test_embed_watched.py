"""What `embed` watches for and reports: failures, time limits, retries, the canary, events and metrics."""

import json
import socket
import tarfile
import urllib.request

import pytest
from PIL import Image

from pipeline.errors import ConfigError, InputError
from pipeline.store.commit_markers import committed_markers
from pipeline.store.layout import Store
from tests.kit.reports import rows

pytestmark = pytest.mark.usefixtures("ray_session")


def test_too_many_bad_images_stop_the_run(run, folder):
    for number in range(3):
        (folder / f"bad-{number}.jpg").write_text("not an image")
    with pytest.raises(InputError, match=r"3 of 9 images failed \(3 undecodable\), more than --max-bad-fraction 0.3"):
        run(folder, max_bad_fraction=0.3)
    report = run(folder, max_bad_fraction=0.4)  # committed shards stay, and count again
    assert (report.num_images, report.num_ok, report.num_embedded) == (9, 6, 0)


def test_a_decoder_that_hangs_fails_one_image(run, folder):
    # slow rather than hanging: 144 million pixels exceed the time limit on any machine
    Image.new("RGB", (12_000, 12_000)).save(folder / "slow.png", compress_level=1)
    report = run(folder, image_timeout=0.5, max_pixels=10**9)
    failed = {row["key"]: (row["status"], row["error"]) for row in rows(report) if row["status"] != "ok"}
    assert failed == {"slow.png": ("timeout", "decoding did not finish within 0.5 s")}
    assert report.num_images == 7
    ticks = []
    report = run(folder, ticks.append, retry="timeout", image_timeout=60, max_bad_fraction=0.1)
    assert (report.num_images, report.num_ok, report.num_embedded, report.retried) == (7, 7, 1, {"ok": 1})
    assert (ticks[-1].num_done, ticks[-1].num_total, ticks[-1].num_failed) == (7, 7, 0)
    assert report.failed == {}


def test_images_that_were_too_large_are_tried_again_with_a_higher_limit(run, tars):
    report = run(tars / "*.tar", max_pixels=2_100)  # of 2,000 to 2,350 pixels
    failed = report.failed["too_large"]
    assert 0 < failed < report.num_images == 8
    before = {row["key"]: row for row in rows(report)}
    with pytest.raises(ConfigError, match="add --retry too_large to try larger images again"):
        run(tars / "*.tar", max_pixels=2_200)
    report = run(tars / "*.tar", max_pixels=2_200, retry="failed")
    assert report.retried.keys() == {"ok", "too_large"}
    report = run(tars / "*.tar", max_pixels=10_000, retry="too_large")
    assert (report.num_images, report.num_ok, report.failed) == (8, 8, {})
    assert [plan.max_pixels for plan in report.record.plans] == [None, 2_200, 10_000]
    assert report.record.max_pixels == 2_100
    dead = set(report.view.deleted.tolist())
    after = {row["key"]: row for row in rows(report) if row["id"] not in dead}
    assert after.keys() == before.keys()
    for key, row in after.items():
        assert (row["uri"], row["caption"]) == (before[key]["uri"], before[key]["caption"])
    assert run(tars / "*.tar", max_pixels=2_100).num_embedded == 0  # and the next images have the old limit again


def test_canary(run, folder):
    report = run(folder, canary=1.0, canary_floor=0.9999, policy="fast", shard_size=3)
    [one, other] = committed_markers(report.store, report.record).values()
    for stats in (one, other):
        assert stats.canary["num_images"] == 3
        assert -1 <= stats.canary["min"] <= stats.canary["median"] <= stats.canary["max"] <= 1.0001
    assert any(
        "median cosine between pruned and unpruned embeddings is below 0.9999 in 2 shards" in text
        for text in report.warnings
    )
    text = (report.store.root / "stats.json").read_text()
    assert "median cosine" in text
    with pytest.raises(ConfigError, match="--canary compares with the unpruned model"):
        run(folder, canary=0.5, policy="none", out=folder.parent / "unpruned")


def test_canary_of_a_shard_ignores_an_earlier_unfinished_shard(run, photos, tmp_path):
    for name in ("a.tar", "b.tar"):
        with tarfile.open(tmp_path / name, "w") as archive:
            for path in sorted(photos.glob("*.*"))[:8]:
                archive.add(path, path.name)
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(data[: len(data) // 3])
    with pytest.raises(InputError, match="1 of 2 shards could not be read"):
        run(tmp_path / "*.tar", canary=1.0, policy="fast", batch_size=1)
    store = Store(tmp_path / "store")
    [stats] = committed_markers(store, store.read_record()).values()
    assert stats.canary["num_images"] == stats.num_images == 8


def test_canary_does_not_change_the_parts(run, folder):
    watched = run(folder, canary=0.5)
    plain = run(folder, out=folder.parent / "plain")
    assert watched.store.part_path(0).read_bytes() == plain.store.part_path(0).read_bytes()


def test_events_and_stats(run, folder):
    report = run(folder, shard_size=2)
    events = [json.loads(line) for line in report.store.events_path.read_text().splitlines()]
    names = [event["event"] for event in events]
    assert names == ["run_started", *["shard_committed"] * 3, "run_finished"]
    assert {event["shard"] for event in events if event["event"] == "shard_committed"} == {0, 1, 2}
    stats = json.loads((report.store.root / "stats.json").read_text())
    nothing = {"counts": {}, "names": {}}
    assert stats["store"] == {"num_images": 6, "num_ok": 6, "failed": {}, "left_out": nothing}
    last = stats["last_run"]
    assert set(last["images_per_second"]) == {"end_to_end", "decode", "encode"}
    assert last["bound_by"] in ("decode", "transfer", "encode", "write")
    assert last["sentence"].startswith(f"{last['bound_by']}-bound: ")
    assert min(last["seconds"].values()) >= 0


def test_prometheus_metrics(run, folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    texts = []

    def look(tick):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            texts.append(answer.read().decode())

    run(folder, look, metrics_port=port)
    assert "clipsieve_images_done 6.0" in texts[-1]
    assert 'clipsieve_events_total{event="run_started"} 1.0' in texts[-1]
    with socket.socket() as server:  # another program's port
        server.bind(("0.0.0.0", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"--metrics-port {port}: .*; choose a free port"):
            run(folder, metrics_port=port)
