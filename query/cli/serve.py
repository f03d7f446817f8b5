"""`clipsieve serve`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from query.service.settings import ServeSettings

SUMMARY = "search in a browser, and over HTTP"
EXAMPLES = (
    "  clipsieve serve store\n"
    "  clipsieve serve store-unpruned store-pruned --port 9000\n"
    "  CLIPSIEVE_SERVE_TOKEN=... clipsieve serve store --host 0.0.0.0 --host-name search.example.org"
)
SETTINGS = "query.service.settings:ServeSettings"
MODULES = ("fastapi", "uvicorn", "httptools", "python_multipart", "prometheus_client")
"""What the extra `serve` brings. uvloop is left out: there is none for Windows, and the service does without it."""


def run(settings: "ServeSettings") -> None:
    """Serve until a signal ends it."""
    refuse_missing_extra()
    from query.service.run import serve

    serve(settings)


def refuse_missing_extra() -> None:
    """Check what the service needs, before anything slow is done.

    Raises:
        ConfigError: If something is not installed.
    """
    from importlib.util import find_spec

    from pipeline.errors import ConfigError

    missing = [name for name in MODULES if find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ConfigError(f'{", ".join(missing)} {verb} not installed; run `pip install "clipsieve[serve]"`')
