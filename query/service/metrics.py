"""What the service counts and times, for Prometheus. Labels come from routes and stages, never from what is asked."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from query.hits.hit import Timings

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32)
STAGES = {"embed": "text", "filter": "filter", "index": "index", "hits": "metadata"}
"""Our stages, by those of `Timings`."""


class Metrics:
    """The metrics of one service."""

    def __init__(self) -> None:
        """Start at zero."""
        self.registry = registry = CollectorRegistry()
        self.request_seconds = Histogram(
            "clipsieve_http_request_duration_seconds", "Requests, from their headers to the end of the response",
            ["route", "method", "status"], buckets=BUCKETS, registry=registry,
        )  # fmt: skip
        self._stage_seconds = Histogram(
            "clipsieve_search_stage_duration_seconds", "Stages of searches; those of a batch count once",
            ["store", "stage"], buckets=BUCKETS, registry=registry,
        )  # fmt: skip
        self._batch_size = Histogram(
            "clipsieve_batch_size", "Requests that were answered together", ["store"], buckets=BATCH_BUCKETS,
            registry=registry,
        )  # fmt: skip
        self.in_flight = Gauge("clipsieve_inflight_requests", "Requests that are being answered", registry=registry)
        self.rejected = Counter("clipsieve_rejected", "Requests that were refused", ["reason"], registry=registry)
        self.swaps = Counter("clipsieve_index_swaps", "Indexes that were replaced", ["store"], registry=registry)
        self.failed_swaps = Counter(
            "clipsieve_index_swap_failures", "New indexes that could not be opened", ["store"], registry=registry
        )
        self._vectors = Gauge("clipsieve_index_vectors", "Images that can be found", ["store"], registry=registry)
        self._info = Gauge(
            "clipsieve_index_info", "Which index answers", ["store", "recipe", "fingerprint"], registry=registry
        )
        self._known: dict[str, tuple[str, str, str]] = {}

    def batch(self, store: str, size: int, timings: list[Timings]) -> None:
        """Count a batch.

        Args:
            store: Who answered.
            size: Its requests.
            timings: One for each group of them that was searched together. They share the time of embedding.
        """
        self._batch_size.labels(store).observe(size)
        for number, one in enumerate(timings):
            for stage, name in STAGES.items():
                if stage != "embed" or number == 0:
                    self._stage_seconds.labels(store, name).observe(getattr(one, stage) / 1000)

    def index(self, store: str, recipe: str, fingerprint: str, num_rows: int) -> None:
        """Note which index answers."""
        labels = (store, recipe, fingerprint)
        if store in self._known and self._known[store] != labels:
            self._info.remove(*self._known[store])
        self._known[store] = labels
        self._info.labels(*labels).set(1)
        self._vectors.labels(store).set(num_rows)

    def text(self) -> bytes:
        """All of them, in Prometheus's text format."""
        return generate_latest(self.registry)
