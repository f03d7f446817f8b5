"""The pool's bookkeeping: which worker has which shard. With real workers it is tested in `test_embed_ray`."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from pipeline.plan import Shard
from pipeline.ray_pool import _Run

pytestmark = pytest.mark.usefixtures("ray_session")


def test_a_shard_that_takes_long_is_run_a_second_time_and_the_first_to_finish_counts():
    # the pool's bookkeeping alone, over stand-ins for workers: no real one is slow at will
    replaced, events = [], []

    class Worker:
        def __init__(self, name):
            self.name = name
            self.embed_shard = SimpleNamespace(remote=lambda shard, record, root: ray.put((name, shard.ordinal)))

    slow, quick = Worker("slow"), Worker("quick")
    pool = SimpleNamespace(
        ready_workers=lambda: [slow, quick],
        release=lambda worker: False,
        replace=lambda worker: replaced.append(worker),
    )
    shard = Shard(ordinal=7, shard_id="x", first_id=0, room=1, num_images=1)
    run = _Run(pool, [shard], None, Path("store"), lambda event, **details: events.append(event))
    run.hand_out()
    assert [worker.name for worker, _, _ in run.busy.values()] == ["slow"]
    run._seconds = [0.0] * 3
    run.hand_out()
    assert [worker.name for worker, _, _ in run.busy.values()] == ["slow", "quick"]
    run.hand_out()
    assert len(run.busy) == 2  # twice is enough
    second = list(run.busy)[1]
    stats = SimpleNamespace(num_images=1, host="here")
    run.busy[ray.put(stats)] = run.busy.pop(second)
    run.take(list(run.busy)[1])
    assert (replaced, run.busy) == ([slow], {})
    assert run.progress.finished[0].num_images == 1
    assert events == ["straggler_run_again", "shard_committed"]
