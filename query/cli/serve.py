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


def run(settings: "ServeSettings") -> None:
    """Serve until a signal ends it."""
    from pipeline.errors import ConfigError

    try:
        from query.service.run import serve
    except ImportError as error:
        raise ConfigError(f'{error.name} is not installed; run `pip install "clipsieve[serve]"`') from error
    serve(settings)
