"""What a source holds that becomes no row: counted by kind, with a few names of each."""

from enum import StrEnum

from pydantic import BaseModel

MAX_NAMES = 3


class Kind(StrEnum):
    """Why something becomes no row, or reaches no image. The values are keys in `stats.json` and commit markers."""

    OTHER_SUFFIX = "other_suffix"
    OTHER_FORMAT = "other_format"
    HIDDEN = "hidden"
    LITTER = "litter"
    EXCLUDED = "excluded"
    LINKED_FOLDER = "linked_folder"
    REPEATED_FOLDER = "repeated_folder"

    @property
    def words(self) -> str:
        """The kind in words, to follow a count."""
        return _WORDS[self]


_WORDS = {
    Kind.OTHER_SUFFIX: "files without an image suffix",
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
        """One line for people, for example `3 files without an image suffix (first notes.txt)`."""
        parts = (
            f"{count} {Kind(kind).words} (first {self.names[kind][0]})" for kind, count in sorted(self.counts.items())
        )
        return ", ".join(parts)
