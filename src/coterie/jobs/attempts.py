"""What the last run of a job for a day came to: where it fails, this alone says why.

A run that ends well leaves a version or lists, one that fails nothing. So each leaves a small file,
``work/attempts/JOB/DAY.json``, as it begins and as it ends; another run for the day replaces it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal, TypeAlias

from coterie.errors import CoterieError
from coterie.files import write_json
from coterie.jobs.config import Service

Job: TypeAlias = Literal["weekly", "daily"]

JOBS: tuple[Job, ...] = ("weekly", "daily")
SCHEMA = "coterie.attempt/1"
_KEPT = 60
_LONGEST = 2_000


@dataclass(frozen=True)
class Attempt:
    """A run of a job.

    Args:
        began: UTC, ISO 8601.
        ended: The same; None while it is at work, and of one that was killed.
        error: What it failed of, in words; None if it did not.
    """

    began: str
    ended: str | None = None
    error: str | None = None

    @property
    def seconds(self) -> float | None:
        """How long it took; None if it has not ended."""
        if self.ended is None:
            return None
        took = datetime.fromisoformat(self.ended) - datetime.fromisoformat(self.began)
        return took.total_seconds()


@contextmanager
def attempted(service: Service, job: Job, day: date) -> Iterator[None]:
    """Notes that a run begins, and how it ends. An error passes through; a note that cannot be
    written is no reason to fail.

    Args:
        service: The service.
        job: That runs; its lock is held.
        day: That it is for; of weekly its Monday.
    """
    path = _folder(service, job) / f"{day}.json"
    attempt = Attempt(_now())
    _write(path, attempt)
    try:
        yield
    except BaseException as error:
        _write(path, replace(attempt, ended=_now(), error=_told(error)))
        raise
    _write(path, replace(attempt, ended=_now()))
    for old in sorted(path.parent.glob("[!.]*.json"))[:-_KEPT]:
        old.unlink(missing_ok=True)


def attempts(service: Service, job: Job) -> dict[date, Attempt]:
    """The last run for each day, as far as they are kept; none of versions before 0.2.0."""
    return dict(_read(_folder(service, job)))


def _read(folder: Path) -> Iterator[tuple[date, Attempt]]:
    for path in sorted(folder.glob("[!.]*.json")):
        # One that goes meanwhile, or that nothing can be read of, says nothing.
        with suppress(OSError, ValueError, TypeError, AttributeError):
            told = json.loads(path.read_text(encoding="utf-8"))
            if told.pop("schema") == SCHEMA:
                yield date.fromisoformat(path.stem), Attempt(**told)


def _write(path: Path, attempt: Attempt) -> None:
    with suppress(OSError, CoterieError):
        write_json(path, {"schema": SCHEMA, **asdict(attempt)})


def _folder(service: Service, job: Job) -> Path:
    return service.work / "attempts" / job


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())[:_LONGEST]
    if isinstance(error, CoterieError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
