"""The pool's bookkeeping: which worker has which shard. `test_embed` tests it with real workers."""

import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from pipeline.errors import ConfigError, WorkerError
from pipeline.machine import num_cores
from pipeline.model.precision import Candidate, Measurement
from pipeline.model.spec import ModelSource
from pipeline.store.records import Shard
from pipeline.workers import pool as pools
from pipeline.workers.cores import cpus_reserved, threads_that_fit
from pipeline.workers.dispatch import _Run
from pipeline.workers.messages import EncoderRequest, WorkerIdentity, WorkerReport, code_sha256
from pipeline.workers.pool import WorkerPool

pytestmark = pytest.mark.usefixtures("ray_session")

REPORT = {
    **{"spec": None, "warning": "tower unpruned", "device": "cpu", "batch_size": 32, "threads": 1, "versions": {}},
    **{"kernels": "torch", "measurement": None},
}


def test_a_slow_shard_runs_a_second_time_and_the_first_to_finish_wins():
    # only the pool's bookkeeping, with fake workers: a real one cannot be made slow on demand
    replaced, events = [], []

    class Worker:
        def __init__(self, name):
            self.name = name
            self.embed_shard = SimpleNamespace(remote=lambda shard, *_: ray.put((name, shard.ordinal)))

    slow, quick = Worker("slow"), Worker("quick")
    pool = SimpleNamespace(
        ready_workers=lambda: [slow, quick],
        release=lambda worker: False,
        release_joining=lambda: None,
        joining={},
        replace=lambda worker: replaced.append(worker),
    )
    shard = Shard(ordinal=7, shard_id="x", first_id=0, room=1, num_images=1)
    run = _Run(pool, [shard], record=None, root=Path("store"), on_event=lambda event, **details: events.append(event))
    run.hand_out()
    assert [worker.name for worker, _, _ in run.busy.values()] == ["slow"]
    run._seconds = [0.0] * 3
    run.hand_out()
    assert [worker.name for worker, _, _ in run.busy.values()] == ["slow", "quick"]
    run.hand_out()
    assert len(run.busy) == 2  # no third attempt
    second = list(run.busy)[1]
    stats = SimpleNamespace(num_images=1, host="here")
    run.busy[ray.put(stats)] = run.busy.pop(second)
    run.take(list(run.busy)[1])
    assert (replaced, run.busy) == ([slow], {})
    assert run.progress.finished[0].num_images == 1
    assert events == ["straggler_run_again", "shard_committed"]


def test_idle_and_joining_workers_are_released_once_the_queue_is_empty():
    released = []
    pool = SimpleNamespace(
        ready_workers=list,
        release=lambda worker: released.append(worker) or True,
        release_joining=lambda: released.append("joining"),
    )
    run = _Run(pool, [], record=None, root=Path("store"), on_event=lambda event, **details: None)
    run.idle.append("idle")
    run.hand_out()
    assert released == ["joining", "idle"]
    assert not run.idle


@pytest.mark.parametrize(
    ("num_workers", "cores", "threads"),
    [
        (1, [2], 2), (2, [2], 1), (3, [16], 5), (3, [16, 16], 8), (5, [8] * 4, 4), (6, [16] * 4, 8), (9, [16] * 4, 5),
        (4, [16, 4, 4, 4, 4], 4), (2, [], 1), (64, [2], 1), (1, [1, 8], 8),
    ],
)  # fmt: skip
def test_every_worker_fits_on_a_node(num_workers, cores, threads):
    assert threads_that_fit(num_workers, cores) == threads


@pytest.mark.parametrize("cores", [1, 2, 3, 6, 12, 16, 24, 64, 96])
def test_a_node_full_of_workers_can_still_decode(cores):
    encode, decode = cpus_reserved(cores, 1000, 1)
    units = 10_000  # Ray's resolution
    num_workers = cores * units // round(encode * units)
    left = cores * units - num_workers * round(encode * units)
    assert (num_workers, left // round(decode * units)) == (cores, cores)


def test_spare_cores_limit_decoding():
    encode, decode = cpus_reserved(3, 2, 1)
    assert (3 - 2 * encode) / decode == 6
    assert cpus_reserved(8, 2, 4) == (3, 0.25)


def test_with_device_cpu_workers_take_no_gpu_and_see_none(tiny_model, monkeypatch):
    found = ray.cluster_resources()
    monkeypatch.setattr(ray, "cluster_resources", lambda: found | {"GPU": 4.0})
    pool = WorkerPool(1, device="cpu")
    try:
        assert pool.resources["gpus"] == 0
        assert "num_gpus" not in pool._options  # Ray places the worker on any node with cores
        pool.load(EncoderRequest(source=ModelSource(model=tiny_model), policy=None, precision="fp32", max_pixels=1000))
        assert pool.report.device == "cpu"
    finally:
        pool.stop()


def test_a_gpu_that_is_not_there_is_refused():
    if ray.cluster_resources().get("GPU"):
        pytest.skip("Ray sees a GPU")
    with pytest.raises(ConfigError, match=r"'cuda'.*give --device cpu"):
        WorkerPool(1, device="cuda")


@pytest.mark.parametrize(
    ("choice", "num_images", "num_gpus", "compiles"),
    [
        ("auto", 999_999, 2, False), ("auto", 1_000_000, 2, True), ("on", 1, 1, True), ("off", 10**9, 1, False),
        ("on", 10**9, 0, False), ("auto", 10**9, 0, False),
    ],
)  # fmt: skip
def test_towers_are_compiled_where_that_pays(choice, num_images, num_gpus, compiles):
    calls = []

    class Worker:
        def __init__(self, reason):
            self.compile_tower = SimpleNamespace(remote=lambda: calls.append(1) or ray.put(reason))

    pool = object.__new__(WorkerPool)  # only its bookkeeping: there may be no GPU
    pool._num_gpus, pool._compiles, pool.joining = num_gpus, False, {}
    pool._workers, pool.report = [Worker(None), Worker("no compiler")], WorkerReport(**REPORT)
    for _ in range(2):  # what is compiled is not compiled again
        pool.compile_towers(choice, num_images)
    assert len(calls) == 2 * compiles
    warning = "tower unpruned; the image tower cannot be compiled: no compiler; it runs uncompiled"
    assert pool.report.warning == (warning if compiles else "tower unpruned")


@pytest.mark.skipif(num_cores() < 2, reason="needs two workers")
def test_the_first_worker_decides_how_all_compute(spec, tiny_model, tmp_path, monkeypatch):
    class Measures:
        """Notes what it is to load. The first to measure finds bf16 fastest, the second would find fp16."""

        def __init__(self, *_):
            self.asked = []

        def identify(self):
            return WorkerIdentity(host="here", version="0", code_sha256=code_sha256())

        def load(self, request, weights=None):
            self.asked.append((request.precision, request.kernels))
            if request.precision:
                chosen, measurement = Candidate(precision=request.precision, kernels=request.kernels), None
            else:
                number = len(list(tmp_path.iterdir()))
                (tmp_path / str(number)).touch()
                chosen = [Candidate(precision="bf16", kernels="onednn"), Candidate(precision="fp16")][number]
                measurement = Measurement(chosen=chosen, speeds={"fp32": 1.0, str(chosen): 2.0})
            loaded = spec.model_copy(update={"precision": chosen.precision, "policy": request.policy})
            return WorkerReport(**REPORT | {"spec": loaded, "kernels": chosen.kernels, "measurement": measurement})

        def pack(self):
            return b"weights"

        def images_done(self):
            return self.asked

    monkeypatch.setattr(pools, "EncodeWorker", ray.remote(Measures))
    pool = WorkerPool(2)
    try:
        source, of_first = ModelSource(model=tiny_model), ("bf16", "onednn")
        request = EncoderRequest(source=source, policy=None, precision=None, max_pixels=1000)
        pool.load(request)
        assert (pool.report.spec.precision, pool.report.kernels) == of_first
        pool.load(replace(request, policy=spec.policy))  # another store, to be compared with the first one
        pool.load(replace(request, precision="fp32", kernels="torch"))
        asked = [ray.get(worker.images_done.remote()) for worker in pool._workers]
    finally:
        pool.stop()
    assert sorted(asked, key=str) == [
        [of_first, of_first, ("fp32", "torch")],
        [(None, None), of_first, ("fp32", "torch")],
    ]


@pytest.mark.parametrize("delay_s", [0.002, 0.004, 0.006, 0.008])
def test_workers_stopped_while_starting_free_their_resources(delay_s):
    @ray.remote(num_cpus=0.1)
    def leave_an_idle_process():
        time.sleep(0.3)

    ray.get([leave_an_idle_process.remote() for _ in range(3)])
    pool = WorkerPool(num_cores())
    time.sleep(delay_s)
    pool.stop()
    deadline = time.monotonic() + 10
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


class CannotStart:
    """A worker whose constructor fails, as if its node lacked a library."""

    def __init__(self, *_):
        raise ImportError(f"libmissing.so: {'x' * 300}\nand more")

    def identify(self):
        pass

    def images_done(self):
        pass


class CannotImport(CannotStart):
    """A worker that starts, but whose node lacks a package that it needs."""

    def __init__(self, *_):
        pass

    def identify(self):
        import no_such_package  # noqa: F401


@pytest.mark.parametrize(
    ("worker", "cause"),
    [
        (CannotStart, f"ImportError: libmissing.so: {'x' * 300} and more"),
        (CannotImport, "ModuleNotFoundError: No module named 'no_such_package'"),
    ],
)
def test_a_worker_that_cannot_start_ends_the_run_with_the_whole_cause(worker, cause, tiny_model, monkeypatch):
    monkeypatch.setattr(pools, "EncodeWorker", ray.remote(worker))
    pool = WorkerPool(1)
    try:
        with pytest.raises(WorkerError) as caught:
            pool.load(
                EncoderRequest(source=ModelSource(model=tiny_model), policy=None, precision="fp32", max_pixels=1000)
            )
    finally:
        pool.stop()
    message = str(caught.value)
    assert message.startswith(f"a worker cannot start: {cause} ({__file__}, line ")
    assert message.endswith("; check the installation with `clipsieve doctor`, on a cluster on every node")


@pytest.mark.kill
def test_waiting_for_workers_without_resources_times_out(tiny_model, monkeypatch):
    monkeypatch.setattr(pools, "WORKERS_GONE_S", 3.0)
    monkeypatch.setattr(pools, "SETTLE_S", 0.5)
    other = WorkerPool(num_cores())
    ray.get([worker.identify.remote() for worker in other._workers])
    pool = WorkerPool(1)
    try:
        with pytest.raises(WorkerError, match="0 of 1 workers got resources within 3 s"):
            pool.load(
                EncoderRequest(source=ModelSource(model=tiny_model), policy=None, precision="fp32", max_pixels=1000)
            )
    finally:
        pool.stop()
        other.stop()


@pytest.mark.kill
@pytest.mark.skipif(num_cores() < 2, reason="needs two workers")
def test_workers_that_keep_dying_while_loading_end_the_run(tiny_model, tmp_path, monkeypatch):
    class LoadsOnce:
        """The first worker loads; all others die, as if memory could not hold a second model."""

        def __init__(self, *_):
            pass

        def identify(self):
            return WorkerIdentity(host="here", version="0", code_sha256=code_sha256())

        def load(self, request, weights=None):
            try:
                (tmp_path / "loaded").touch(exist_ok=False)
            except FileExistsError:
                os._exit(9)
            return WorkerReport(**REPORT | {"spec": SimpleNamespace(precision="fp32")})

        def pack(self):
            return b"weights"

        def images_done(self):
            return 0, 0

    monkeypatch.setattr(pools, "EncodeWorker", ray.remote(LoadsOnce))
    pool = WorkerPool(2)
    try:
        with pytest.raises(
            WorkerError, match=r"workers died 6 times while loading the model \(.+\); if memory is short.+/logs$"
        ):
            pool.load(
                EncoderRequest(source=ModelSource(model=tiny_model), policy=None, precision="fp32", max_pixels=1000)
            )
    finally:
        pool.stop()
