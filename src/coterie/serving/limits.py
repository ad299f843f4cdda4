"""What one client may ask of the server, and for how long."""

from typing import Annotated

from pydantic import Field

from coterie.models.fields import PositiveInt, StrictConfig

MAX_K = 1000
MAX_HISTORIES = 100
MAX_IDS = 10_000
MAX_ID_LENGTH = 1000
MAX_FILTER = 1000
"""Ids that a query string may allow or deny; a body may hold ``MAX_IDS``."""


Seconds = Annotated[float, Field(gt=0)]
Bytes = Annotated[int, Field(ge=1024)]


class Limits(StrictConfig):
    """Bounds that depend on the machine; those on single fields are in the API's schema.

    Raises:
        ConfigError: naming every unknown field and every value out of range.

    Example:
        >>> Limits(connections=100).connections
        100
        >>> Limits(store_threads=0)
        Traceback (most recent call last):
        ...
        coterie.errors.ConfigError: store_threads: Input should be greater than or equal to 1, ...
    """

    body_bytes: Bytes = Field(1 << 20, description="of a request's body; more is refused with 413")
    head_bytes: Bytes = Field(1 << 16, description="of a request's line and headers together")
    head_seconds: Seconds = Field(
        10.0, description="within which they must have come, from the connection's beginning on"
    )
    body_seconds: Seconds = Field(
        10.0, description="within which the body must have come; then 408"
    )
    request_seconds: Seconds = Field(
        20.0, description="within which a request is answered; then 503"
    )
    stop_seconds: float = Field(
        20.0, ge=1, description="that running requests have to finish when the server is stopped"
    )
    connections: PositiveInt = Field(1000, description="open at a time; more get 503")
    store_threads: int = Field(
        1,
        ge=1,
        le=16,
        description="that wait for PostgreSQL, each for up to 64 look-ups asked together",
    )
    model_threads: PositiveInt = Field(2, description="that compute with the model")
    model_waiting: PositiveInt = Field(
        64, description="requests that wait for the model or are computed; more get 429"
    )
    poll_seconds: Seconds = Field(1.0, description="between two looks at which model is live")
