"""What a source holds that becomes no row: counted by kind, with a few names of each."""

from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import BaseModel

MAX_NAMES = 3


class Kind(StrEnum):
    """Why something becomes no row, or reaches no image. The values are keys in `stats.json` and commit markers."""

    OTHER_SUFFIX = "other_suffix"
    TEXT_WITHOUT_IMAGE = "text_without_image"
    IMAGE_WITHOUT_TEXT = "image_without_text"
    DAMAGED_JSON = "damaged_json"
    LINK_OUT_OF_TAR = "link_out_of_tar"
    DANGLING_LINK = "dangling_link"
    LINK_IN_LOOP = "link_in_loop"
    TAR_WITHOUT_IMAGE = "tar_without_image"
    OTHER_FORMAT = "other_format"
    HIDDEN = "hidden"
    LITTER = "litter"
    EXCLUDED = "excluded"
    LINKED_FOLDER = "linked_folder"
    REPEATED_FOLDER = "repeated_folder"

    @property
    def words(self) -> str:
        """The kind in words, for a line with its count."""
        return _WORDS[self]


_WORDS = {
    Kind.OTHER_SUFFIX: "files without an image suffix",
    Kind.TEXT_WITHOUT_IMAGE: "texts in tars that belong to no image",
    Kind.IMAGE_WITHOUT_TEXT: "images embedded without text, although their group in the tar has texts",
    Kind.DAMAGED_JSON: "images embedded without the fields of their .json, which is not a JSON object",
    Kind.LINK_OUT_OF_TAR: "links in tars to a place outside the tar",
    Kind.DANGLING_LINK: "links in tars to nothing in the tar",
    Kind.LINK_IN_LOOP: "links in tars that form a loop",
    Kind.TAR_WITHOUT_IMAGE: "tars without an image",
    Kind.OTHER_FORMAT: "files of another format than the source",
    Kind.HIDDEN: "hidden files and folders",
    Kind.LITTER: "folders of thumbnails or deleted files that a file server or archiver made",
    Kind.EXCLUDED: "files and folders that --exclude names",
    Kind.LINKED_FOLDER: "linked folders, which --follow-links would list",
    Kind.REPEATED_FOLDER: "folders that links lead to a second time",
}


class LeftOut(BaseModel):
    """Counts by kind, and the first names of each kind."""

    counts: dict[str, int] = {}
    names: dict[str, list[str]] = {}

    def add(self, kind: Kind, name: str) -> None:
        """Count one file or member."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        names = self.names.setdefault(kind, [])
        if len(names) < MAX_NAMES:
            names.append(name)

    def add_all(self, other: "LeftOut") -> None:
        """Add the counts and names of another one."""
        for kind, count in other.counts.items():
            self.counts[kind] = self.counts.get(kind, 0) + count
            names = self.names.setdefault(kind, [])
            names.extend(other.names.get(kind, [])[: MAX_NAMES - len(names)])

    def __bool__(self) -> bool:
        return bool(self.counts)

    def describe(self) -> str:
        """One line for people, for example `files without an image suffix: 3 (first 'notes.txt')`."""
        parts = (
            f"{Kind(kind).words}: {count} (first {self.names[kind][0]!r})"
            for kind, count in sorted(self.counts.items())
        )
        return "; ".join(parts)


@dataclass(slots=True)
class ReadNotes:
    """What is known of a file besides its images, once it has been read."""

    left_out: LeftOut = field(default_factory=LeftOut)
    columns_seen: set[str] | None = None
    """Which of the source's columns its images have, if only with the value null. None for formats with a schema."""

    num_links: int = 0
    """Number of images that are links in a tar."""
