"""A run that would start workers is stopped before it does."""

from pipeline.workers import pool


class Started(Exception):
    """Workers would be started."""


def refuse_workers(monkeypatch):
    """Raise `Started` in place of starting workers, until the end of the test."""

    def start(*_):
        raise Started

    monkeypatch.setattr(pool, "worker_pool", start)
