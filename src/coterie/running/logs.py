"""What libraries say by `logging`, shown: as text for people, or as JSON lines for services.

Every module logs under the name ``coterie``. Nothing is configured on import: that is for the
program that uses the library, as the command line does here.
"""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

LEVELS = ("debug", "info", "warning", "error")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "progress",  # says that the record is drawn as well, of no interest to readers
}


class JsonLines(logging.Formatter):
    """One JSON object a record: time (UTC, ISO 8601), level, logger, message, and the extras.

    Example:
        >>> record = logging.makeLogRecord({"name": "coterie", "msg": "epoch %d", "args": (3,)})
        >>> json.loads(JsonLines().format(record))["message"]
        'epoch 3'
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


class _Lines(logging.Handler):
    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(self.format(record))
        except Exception:
            self.handleError(record)


def show_logs(
    write: Callable[[str], None],
    level: str = "info",
    *,
    as_json: bool = False,
    with_progress: bool = True,
) -> None:
    """Sends what Coterie logs to ``write``, a line a call, in place of where it went before.

    Args:
        write: Takes a line without its end.
        level: The least important one shown, of `LEVELS`.
        as_json: JSON lines in place of the bare message.
        with_progress: Whether to show records that repeat what `Progress` reports.

    Example:
        >>> lines = []
        >>> show_logs(lines.append, "info")
        >>> logging.getLogger("coterie.example").info("read %d rows", 3)
        >>> lines
        ['read 3 rows']
        >>> show_logs(lines.append, "error")
    """
    handler = _Lines(write)
    handler.setFormatter(JsonLines() if as_json else logging.Formatter("%(message)s"))
    handler.addFilter(lambda record: with_progress or not getattr(record, "progress", False))
    logger = logging.getLogger("coterie")
    logger.handlers = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
