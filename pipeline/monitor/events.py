"""Reporting during a run: the store's event log, Prometheus metrics, Weights & Biases."""

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
    """Sends ticks and events to the log, the callback and the chosen services. A context manager."""

    def __init__(
        self, log: Path, on_tick: Callable[[Tick], None], metrics_port: int | None = None, wandb: str | None = None
    ) -> None:
        """Start the chosen services.

        Args:
            log: JSON-lines file to append events to.
            on_tick: Called with every tick.
            metrics_port: Port for Prometheus metrics.
            wandb: Weights & Biases project.

        Raises:
            ConfigError: If a package is missing, the port is in use, or wandb cannot start.
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
        """Report how far the run is."""
        if self._metrics:
            self._metrics.set(tick)
        if self._wandb:
            self._wandb.log({"images": tick.num_done, "failed": tick.num_failed, "images/s": tick.images_per_second})
        self._on_tick(tick)

    def event(self, event: str, **details: Any) -> None:
        """Log an event with its details.

        Raises:
            StoreError: If the log cannot be written.
        """
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "host": platform.node(), "event": event}
        try:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line | details, ensure_ascii=False) + "\n")
        except OSError as error:
            raise StoreError(f"cannot write {self._log}: {error.strerror}; free up space or move the store") from error
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
                "images_planned": "Planned images in the whole store; 0 until tars are counted",
                "images_done": "Embedded and failed images in the whole store",
                "images_failed": "Failed images in the whole store (rows without an embedding)",
                "images_per_second": "End-to-end rate of this run",
            }.items()
        }
        self._events = Counter("clipsieve_events", "Events in this run, by type", ["event"], registry=registry)
        try:
            self._server, self._thread = start_http_server(port, registry=registry)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on --metrics-port {port}: {error.strerror}; choose a free port"
            ) from error

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
        raise ConfigError("--wandb needs wandb: pip install wandb") from error
    try:
        return wandb.init(project=project, job_type="embed")
    except Exception as error:  # wandb's own errors, from the network or a missing login
        reason = first_line(error)
        raise ConfigError(
            f"cannot start --wandb {project}: {reason}; run `wandb login`, or set WANDB_MODE=offline"
        ) from error
