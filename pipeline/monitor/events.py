"""What a run tells while it lasts: the event log of the store, Prometheus metrics, Weights & Biases."""

import json
import platform
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, StoreError, first_line
from pipeline.monitor.progress import Tick


class Reporting:
    """Passes ticks and events on to whoever was asked for; a context."""

    def __init__(
        self, log: Path, on_tick: Callable[[Tick], None], metrics_port: int | None = None, wandb: str | None = None
    ) -> None:
        """Open what was asked for.

        Args:
            log: JSON-lines file that events are appended to.
            on_tick: Told of every tick as well.
            metrics_port: Port to serve Prometheus metrics on.
            wandb: Weights & Biases project.

        Raises:
            ConfigError: If a package is missing, or the port is taken.
        """
        self._log = log
        self._on_tick = on_tick
        self._metrics = _Metrics(metrics_port) if metrics_port else None
        self._wandb = _start_wandb(wandb) if wandb else None

    def __enter__(self) -> "Reporting":
        return self

    def __exit__(self, *_: object) -> None:
        if self._metrics:
            self._metrics.close()
        if self._wandb:
            self._wandb.finish()

    def tick(self, tick: Tick) -> None:
        """How far the run is."""
        if self._metrics:
            self._metrics.set(tick)
        if self._wandb:
            self._wandb.log({"images": tick.num_done, "failed": tick.num_failed, "images/s": tick.images_per_second})
        self._on_tick(tick)

    def event(self, event: str, **details: Any) -> None:
        """Something that happened, with what is known of it."""
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "host": platform.node(), "event": event}
        try:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line | details, ensure_ascii=False) + "\n")
        except OSError as error:
            raise StoreError(f"cannot write {self._log}: {error.strerror}; free space, or move the store") from error
        if self._metrics:
            self._metrics.count(event)


class _Metrics:
    def __init__(self, port: int) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server
        except ImportError as error:
            raise ConfigError("--metrics-port needs prometheus_client: pip install prometheus_client") from error
        registry = CollectorRegistry()
        self._gauges = {
            name: Gauge(f"clipsieve_{name}", text, registry=registry)
            for name, text in {
                "images_planned": "Images of the whole store; 0 until tars are counted",
                "images_done": "Images embedded or failed, of the whole store",
                "images_failed": "Images that became rows without an embedding",
                "images_per_second": "End-to-end rate of this run",
            }.items()
        }
        self._events = Counter("clipsieve_events", "What happened in this run", ["event"], registry=registry)
        try:
            self._server, self._thread = start_http_server(port, registry=registry)
        except OSError as error:
            raise ConfigError(f"--metrics-port {port}: {error.strerror}; choose a free port") from error

    def set(self, tick: Tick) -> None:
        self._gauges["images_planned"].set(tick.num_total or 0)
        self._gauges["images_done"].set(tick.num_done)
        self._gauges["images_failed"].set(tick.num_failed)
        self._gauges["images_per_second"].set(tick.images_per_second)

    def count(self, event: str) -> None:
        self._events.labels(event).inc()

    def close(self) -> None:
        with suppress(Exception):
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


def _start_wandb(project: str) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ConfigError("--wandb needs the package wandb: pip install wandb") from error
    try:
        return wandb.init(project=project, job_type="embed")
    except Exception as error:  # its own errors, of the network or of a missing login
        reason = first_line(error)
        raise ConfigError(f"--wandb {project}: {reason}; run `wandb login`, or set WANDB_MODE=offline") from error
