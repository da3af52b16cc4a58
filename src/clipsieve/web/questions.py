"""What the page may ask, checked before anything is done: no question names a path."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from clipsieve.errors import UsageError
from clipsieve.recipe import Keep
from clipsieve.web.queries import Shown

BODY = 256 * 1024
"""Bytes of a question; a hundred long rules take a tenth of it."""

PAGE = 120
"""Images or groups that are answered at once."""

NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$"
"""What a new run folder may be called: a name, never a path."""


def _listed(value: Any) -> Any:
    return [{"rule": one} if isinstance(one, str) else one for one in value] if isinstance(value, list) else value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rules(_Strict):
    """Rules as in a recipe, and the scores whose histograms are wanted."""

    keep: Annotated[tuple[Keep, ...], BeforeValidator(_listed), Field(max_length=100)] = ()
    histograms: Annotated[tuple[str, ...], Field(max_length=100)] = ()

    @property
    def values(self) -> list[dict[str, Any]]:
        """The rules as plain values."""
        return [one.model_dump(exclude_none=True) for one in self.keep]


class Gallery(Rules):
    """A page of the gallery.

    Of the images that are to be shown, with ``by`` only those that the rule of that number drops (rules are numbered in
    the order they decide), and with ``beside`` only those that go with a failed image of their sample. In the ``order``
    "near" those nearest to the threshold of the rule of the number ``near`` come first; "up" and "down" are by the
    score ``sort``, or as in the input.
    """

    show: Shown = "all"
    by: int | None = Field(default=None, ge=0)
    beside: bool = False
    sort: str | None = None
    order: Literal["up", "down", "near", "mixed"] = "up"
    near: int | None = Field(default=None, ge=0)
    offset: int = Field(default=0, ge=0)
    limit: int = Field(default=60, ge=1, le=PAGE)


class Page(Rules):
    """A page of the groups of near duplicates."""

    offset: int = Field(default=0, ge=0)
    limit: int = Field(default=20, ge=1, le=PAGE)


class One(Rules):
    """All of one image, by the row of the ledger."""

    row: int = Field(ge=0)


class Search(Rules):
    """Images like a text, or like the image of a row."""

    text: str | None = Field(default=None, max_length=2000)
    row: int | None = Field(default=None, ge=0)
    within: Literal["run", "index"] = "run"
    limit: int = Field(default=60, ge=1, le=PAGE)


class Apply(Rules):
    """Writes the selection into a new run folder beside the run."""

    name: Annotated[str, Field(pattern=NAME)]
    fill: bool = False


Asked = TypeVar("Asked", bound=BaseModel)


def read(kind: type[Asked], body: bytes) -> Asked:
    """A question from the body of a request. Raises ``UsageError``."""
    try:
        asked = json.loads(body)
        json.dumps(asked, ensure_ascii=False, allow_nan=False).encode()  # no answer could say NaN or half a character
        return kind.model_validate(asked)
    except ValidationError as failure:
        first = failure.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        if first["loc"] == ("name",):
            raise UsageError(
                "a name has letters, digits, dots, dashes and underscores, and no slash: it is a folder beside the run"
            ) from None
        raise UsageError(f"{place}: {first['msg']}") from None
    except (ValueError, RecursionError):
        raise UsageError("the question is not JSON in UTF-8") from None
