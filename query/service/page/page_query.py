"""The query of the page: the fields of an address or a form as they were typed, and links to queries like it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from pydantic import ValidationError

from query.service.problems import ProblemError, invalid
from query.service.questions import StoreParams

_FILTERS = ("where", "min_relevance", "unique", "unique_cosine")
_LISTS = tuple(name for name, field in StoreParams.model_fields.items() if field.get_default() == [])


@dataclass(frozen=True, slots=True)
class PageQuery:
    """What an address or a form holds, as it was typed. Empty fields count as missing."""

    items: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, items: Iterable[tuple[str, str]]) -> "PageQuery":
        """Leave out what is empty or a repetition, and what only says how to answer."""
        return cls(tuple(dict.fromkeys((name, value) for name, value in items if value.strip() and name != "fragment")))

    def all(self, name: str) -> list[str]:
        """The values of a field."""
        return [value for one, value in self.items if one == name]

    def one(self, name: str) -> str:
        """The last value of a field, or nothing."""
        return (self.all(name) or [""])[-1]

    def but(self, **changes: Any) -> "PageQuery":
        """The same with other values: of fields that are named, none, one or several."""
        items = [(name, value) for name, value in self.items if name not in changes]
        for name, values in changes.items():
            some = values if isinstance(values, list) else [] if values is None else [values]
            items += [(name, str(value)) for value in some]
        return PageQuery(tuple(items))

    @property
    def address(self) -> str:
        """The link to it from the page."""
        return f"?{urlencode(self.items)}" if self.items else "./"

    def without(self, name: str, value: object) -> "PageQuery":
        """The same without one value of a field, from the first hit on."""
        return PageQuery(tuple(item for item in self.items if item != (name, str(value)) and item[0] != "offset"))

    @property
    def filters(self) -> list[str]:
        """The fields that leave out images."""
        return [name for name, _ in self.items if name in _FILTERS]

    @property
    def unfiltered(self) -> "PageQuery":
        """The same without them."""
        return self.but(**dict.fromkeys(_FILTERS))

    def elsewhere(self, liked: Sequence[dict[str, Any]]) -> "PageQuery":
        """The same for any store: images by their keys, since ids are those of one store, and from the first hit on."""
        names = [one["hit"]["key"] if one["hit"] else one["value"] for one in liked]
        return self.but(like=None, like_key=names, store=None, compare=None, offset=None)

    @property
    def compares(self) -> bool:
        """Whether both stores are asked."""
        return self.one("compare") == "1"

    @property
    def asks(self) -> bool:
        """Whether there is a query at all."""
        return any(name in ("text", "like", "like_key") for name, _ in self.items)

    def params(self) -> StoreParams:
        """What it asks.

        Raises:
            ProblemError: 422 if a field has no such value, or there is no such field.
        """
        if self.one("image"):
            raise ProblemError(422, "an address cannot hold an image; press “Search with this image” to send it")
        names = {name for name, _ in self.items}
        values: dict[str, Any] = {name: self.all(name) if name in _LISTS else self.one(name) for name in names}
        values.pop("compare", None)
        if self.compares:  # both stores, and always from the first hit
            values = {name: value for name, value in values.items() if name not in ("store", "offset")}
        try:
            return StoreParams.model_validate(values)
        except ValidationError as error:
            raise ProblemError(422, invalid(error.errors())) from error
