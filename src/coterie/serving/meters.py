"""What Prometheus is told. No label names a person or an item."""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Meters:
    """One server's meters."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "coterie_requests",
            "Requests answered.",
            ("route", "method", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "coterie_request_seconds",
            "From a request's headers to the end of its answer.",
            ("route",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.store_errors = Counter(
            "coterie_store_errors", "Questions that the database failed.", registry=self._registry
        )
        self._edition = self._gauge("edition_age_seconds", "Of the live edition.", "edition")
        self._model = self._gauge("model_age_seconds", "Of the live model loaded.", "version")
        self._store_up = self._gauge("store_up", "Whether an edition can be read.")
        self._counted = lru_cache(1024)(self._requests.labels)
        self._timed = lru_cache(128)(self._seconds.labels)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(f"coterie_{name}", what, labels, registry=self._registry)

    def note(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self._counted(route, method, status).inc()
        self._timed(route).observe(seconds)

    def text(
        self, edition: tuple[str, datetime] | None, model: tuple[str, datetime] | None
    ) -> bytes:
        """All of it, in Prometheus' own format.

        Args:
            edition: Name and date of the live one; None if none can be read.
            model: The same of the live model.
        """
        self._store_up.set(edition is not None)
        for gauge, one in ((self._edition, edition), (self._model, model)):
            gauge.clear()
            _show_age(gauge, [] if one is None else [one])
        return generate_latest(self._registry)


def _show_age(gauge: Gauge, dated: Iterable[tuple[str, datetime]]) -> None:
    for name, made in dated:
        gauge.labels(name).set((datetime.now(UTC) - made).total_seconds())
