"""What goes in and what comes out, as the API's schema tells it.

Requests are checked by these; answers are written as bytes and only described by them.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
)
from pydantic.json_schema import SkipJsonSchema

from coterie.serving.limits import MAX_FILTER, MAX_HISTORIES, MAX_ID_LENGTH, MAX_IDS, MAX_K


def _whole(value: float) -> int:
    """JSON knows no whole numbers: 7.0 is 7, and some write it so."""
    if not value.is_integer() or abs(value) >= 2**63:
        raise ValueError("a number must be whole and fit into 64 bits")
    return int(value)


def _whole_or_as_it_is(value: Any) -> Any:
    return _whole(value) if isinstance(value, float) else value


ItemId = (
    Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
    | Annotated[str, Field(strict=True, max_length=MAX_ID_LENGTH)]
    | SkipJsonSchema[Annotated[float, Field(strict=True), AfterValidator(_whole)]]
)
ItemIds = Annotated[list[ItemId], Field(max_length=MAX_IDS)]


Text = Annotated[str, Field(max_length=MAX_ID_LENGTH)]
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]
Texts = Annotated[frozenset[Text], Field(max_length=MAX_FILTER)]
Length = Annotated[int, Field(ge=1, le=MAX_K)]


class LookUp(BaseModel):
    """A path and a query that ask for a published list."""

    model_config = ConfigDict(extra="forbid")

    user_id: Id = Field(description="any text; a whole number is its text")
    row: Text = Field("main", description="card row")
    k: Length = Field(20, description="list length")
    allow: Texts | None = Field(None, description="the only item ids; repeat it for more")
    deny: Texts = Field(frozenset(), description="item ids to leave out; repeat it for more")


class LikeItem(BaseModel):
    """A path and a query that ask for similar items."""

    model_config = ConfigDict(extra="forbid")

    item_id: Id = Field(description="any text; a whole number is its text")
    k: Length = Field(20, description="list length")


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="what must hold, what was found, what to do")


class _Wish(BaseModel):
    model_config = ConfigDict(extra="forbid")

    k: Annotated[int, Field(strict=True, ge=1, le=MAX_K), BeforeValidator(_whole_or_as_it_is)] = (
        Field(20, description="list length")
    )
    allow: ItemIds | None = Field(None, min_length=1, description="the only items to recommend")
    deny: ItemIds = Field(default_factory=list, description="items never to recommend")
    exclude_seen: Annotated[bool, Field(strict=True)] = Field(
        True, description="whether to leave out the items of the history"
    )


class OneHistory(_Wish):
    """A list for somebody who is in no database."""

    history: ItemIds = Field(description="items they have had; repetitions count once")

    @property
    def listed(self) -> list[list[Any]]:
        """Every history of the request."""
        return [self.history]


class ManyHistories(_Wish):
    """Lists for several people, in their order."""

    histories: list[ItemIds] = Field(max_length=MAX_HISTORIES, description="of each, as in history")

    @property
    def listed(self) -> list[list[Any]]:
        """Every history of the request."""
        return list(self.histories)


def _how_many(value: Any) -> str:
    return "many" if isinstance(value, dict) and "histories" in value else "one"


FoldIn = Annotated[
    Annotated[OneHistory, Tag("one")] | Annotated[ManyHistories, Tag("many")],
    Discriminator(_how_many),
]
FOLD_IN: TypeAdapter[OneHistory | ManyHistories] = TypeAdapter(FoldIn)


class Recommended(BaseModel):
    """One place in a list."""

    item_id: int | str
    title: str | None
    score: float


class StoredList(BaseModel):
    """A published list, cut to what was asked for."""

    row: str = Field(description="card row")
    edition: str = Field(description="published edition that it is from")
    model: str | None = Field(description="version of the model that made it, if told")
    experiment: str | None = Field(
        description="that the user is in, to be logged with what is shown; null: in none"
    )
    arm: str | None = Field(description="of the experiment, also where the list is a fall-back")
    source: str = Field(
        description="model; popularity: the user's history is not known to the model; fallback:"
        " there is no list of this user, and this one is everybody's"
    )
    listed: int = Field(description="length of the published list, before k and filters")
    items: list[Recommended] = Field(description="best first")


class FoldedList(BaseModel):
    """A list that was made for this request."""

    source: Literal["model", "popularity"] = Field(
        description="popularity: no item of the history is known to the model"
    )
    unknown_items: list[int | str] = Field(description="of the history, those the model knows not")
    items: list[Recommended] = Field(description="best first")


class OneList(FoldedList):
    """The answer to one history."""

    model: str = Field(description="version of the model")


class ManyLists(BaseModel):
    """The answer to several histories, in their order."""

    model: str = Field(description="version of the model")
    lists: list[FoldedList]


class Similar(BaseModel):
    """One place in a list of similar items."""

    item_id: int | str
    title: str | None
    cosine: float = Field(description="of the angle between what the model learned of both")


class SimilarItems(BaseModel):
    """Items like one item."""

    model: str = Field(description="version of the model")
    items: list[Similar] = Field(description="most similar first")


class Health(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """Lists can be had."""

    edition: str = Field(description="live edition")
    rows: list[str] = Field(description="its card rows")
    model: str = Field(description="version of the live model, or why there is none to fold in by")


class Versions(BaseModel):
    """What is running and what is live."""

    coterie: str
    edition: str | None = Field(description="live edition; null while the store is away")
    edition_model: str | None = Field(description="version of the model that made its lists")
    model: str | None = Field(description="version of the model that folds in, once loaded")
