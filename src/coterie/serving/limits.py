"""What one client may ask of the server, and for how long."""

from dataclasses import dataclass

MAX_K = 1000
MAX_HISTORIES = 100
MAX_IDS = 10_000
MAX_ID_LENGTH = 1000
MAX_FILTER = 1000
"""Ids that a query string may allow or deny; a body may hold ``MAX_IDS``."""


@dataclass(frozen=True)
class Limits:
    """Bounds that depend on the machine; those on single fields are in the API's schema.

    Args:
        body_bytes: Of a request's body; a longer one is refused with 413.
        head_bytes: Of a request's line and headers together.
        head_seconds: Within which they must have come, from the connection's first moment on.
        body_seconds: Within which the body must have come; then 408.
        request_seconds: Within which a request is answered; then 503.
        stop_seconds: That running requests have to finish when the server is stopped.
        connections: Open at a time; more get 503.
        store_threads: That wait for PostgreSQL, each for up to 64 look-ups asked together.
        model_threads: That compute with the model.
        model_waiting: Requests that wait for the model or are computed; more get 429.
        poll_seconds: Between two looks at which model is live.
    """

    body_bytes: int = 1 << 20
    head_bytes: int = 1 << 16
    head_seconds: float = 10.0
    body_seconds: float = 10.0
    request_seconds: float = 20.0
    stop_seconds: float = 20.0
    connections: int = 1000
    store_threads: int = 1
    model_threads: int = 2
    model_waiting: int = 64
    poll_seconds: float = 1.0
