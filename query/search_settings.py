"""Settings of `clipsieve search`."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator, model_validator
from pydantic_settings import CliPositionalArg

from pipeline.model.spec import DeviceChoice
from pipeline.settings.load import OutputSettings
from query.formats import hits_path, picture_path
from query.queries.options import DUPLICATE_COSINE, Options


class SearchSettings(OutputSettings):
    """Find the images of a store that best match texts, images, images of the store, or vectors."""

    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "what": ("store", "query", "image", "like", "queries", "vectors", "store2"),
        "how good": ("k", "where", "min_relevance", "unique", "unique_cosine", "template"),
        "how fast": ("device",),
        "safety": ("partial",),
        "watching": ("out", "sheet"),
    }
    OUTPUTS: ClassVar[dict[str, str]] = {"sheet": "file", "out": "file"}

    store: CliPositionalArg[Path]
    """Indexed store."""

    query: CliPositionalArg[tuple[str, ...]] = ()
    """What to look for: a text in quotation marks, or several of them. A weighted sum looks like
    '"beach" + 0.5*"sunset" - "people"'."""

    image: tuple[str, ...] = ()
    """Image to look for: a path or URL. Repeatable; a text beside it is added."""

    like: tuple[str, ...] = ()
    """Id or key of an image of the store to look for. Repeatable; a text beside it is added."""

    queries: Path | None = None
    """File of queries: texts (.txt, .tsv, .jsonl, .parquet), or vectors in a column `embedding` (.parquet)."""

    vectors: Path | None = None
    """File of queries that must be vectors: a Parquet file with a column `embedding`."""

    store2: Path | None = None
    """Ask this indexed store as well, with its own model, and compare the rankings by key."""

    k: int = Field(default=10, ge=1)
    """Number of hits of each query."""

    where: tuple[str, ...] = ()
    """Only images for which this holds, such as "width > 512 and caption like '%dog%'". Repeatable: all must hold."""

    min_relevance: float | None = None
    """Leave out hits with less relevance. 1 is as far above a random image as chance leads in a store of this size."""

    unique: bool = False
    """Leave out near-duplicates of better hits, and count them beside the hit."""

    unique_cosine: float = Field(default=DUPLICATE_COSINE, gt=0, le=1)
    """From which cosine on --unique takes two images for near-duplicates. The default fits photographs: it finds most
    copies that were saved again, halved or cropped a little; of thousands, one in a hundred has another one as similar.
    Raise it for images that look alike, such as drawings in one style."""

    template: tuple[str, ...] = ()
    """Sentence with {} for the text, such as 'a photo of a {}'. Repeatable; the vectors are averaged."""

    device: DeviceChoice = "auto"
    """Where to embed (texts in fp32) and to search. auto embeds on the CPU, and searches on a GPU if FAISS sees one."""

    partial: bool = False
    """Search an index that does not cover the whole store."""

    out: Path | None = None
    """Write the hits to this file: .parquet, .csv or .jsonl."""

    sheet: Path | None = None
    """Write a contact sheet of the hits to this picture: .png, .jpg or .webp."""

    _check_sheet = field_validator("sheet")(picture_path)
    _check_out = field_validator("out")(hits_path)

    @field_validator("query", "image", "like", "where", "template", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @property
    def file(self) -> Path | None:
        """The file of queries, if there is one."""
        return self.queries or self.vectors

    @property
    def options(self) -> Options:
        """Which answers count."""
        unique = self.unique_cosine if self.unique else False
        return Options(k=self.k, where=self.where, unique=unique, min_relevance=self.min_relevance)

    @model_validator(mode="after")
    def _check_what(self) -> "SearchSettings":
        asked = bool(self.query or self.image or self.like)
        if asked + bool(self.queries) + bool(self.vectors) != 1:
            raise ValueError("give what to look for (QUERY, --image, --like), or a file of it (--queries, --vectors)")
        if self.file and not self.out:
            raise ValueError("--queries and --vectors need --out, the file of hits")
        if self.file and (self.sheet or self.store2):
            raise ValueError("--sheet and --store2 show the hits of single queries, not of a file")
        numbers = [one for one in self.like if one.isdecimal()]
        if self.store2 and numbers:
            raise ValueError(
                f"like = {numbers[0]}: each store has ids of its own; with --store2, name images by their keys"
            )
        if len(self.query) > 1 and (self.image or self.like):
            raise ValueError("--image and --like are added to one text; give the others in commands of their own")
        return self
