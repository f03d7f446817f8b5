"""Images to Parquet shards, and the pruned CLIP that makes them.

Each verb is a file here with one function that tells its whole story: `embedding.embed`, `dry_run`, `adapt`, `verify`,
`delete`, `compact`. The rooms beside them hold what the stories need, from `source` (where images come from) to
`store` (what is on disk). The public name is `embed`. Importing this package imports nothing heavy.
"""

from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.embed_report import EmbedReport
    from pipeline.monitor.progress import Tick

__version__ = "0.1.0"
__all__ = ["embed"]


def embed(
    source: str | PathLike[str],
    out: str | PathLike[str],
    *,
    on_tick: "Callable[[Tick], None]" = lambda tick: None,
    on_warning: Callable[[str], None] = lambda text: None,
    **settings: Any,
) -> "EmbedReport":
    """Embed images into a store, as `clipsieve embed` does. Resumes an unfinished store, and adds new images.

    Args:
        source: A folder, tars, Parquet files or a list, by path or URL.
        out: The folder of the store.
        on_tick: Called about twice a second with the progress.
        on_warning: Called before the work, with what looks wrong in the source.
        **settings: Those of `pipeline.settings.embed.EmbedSettings`, named as the flags with _ for -. For example
            `model="ViT-B-16"`, `pretrained="openai"`, `policy="fast"`, `columns="license"`.

    Returns:
        What was embedded, with counts of what failed. Its `refuse_bad_source()` raises an error if that was everything.

    Raises:
        ConfigError: If a setting is unknown or out of range.
        ClipsieveError: See `pipeline.errors`. Shards committed before the error stay committed.
    """
    from pipeline import embedding
    from pipeline.settings.embed import EmbedSettings
    from pipeline.settings.load import settings_of

    made = settings_of(EmbedSettings, "embed", {**settings, "source": source, "out": out}, ("dry_run",))
    return embedding.embed(made, on_tick, on_warning=on_warning)
