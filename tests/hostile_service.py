"""A service whose users and titles have the ids and names that no friend gives."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coterie.jobs.config import Service
from coterie.jobs.daily import daily
from coterie.jobs.weekly import weekly
from small_service import at, configure, write_events

FIRST_DAY = date(2026, 1, 5)
TODAY = FIRST_DAY + timedelta(weeks=2)

SCRIPT = "<script>window.ran = 1; alert(1)</script>"
IMAGE = '<img src=x onerror="window.ran = 1; alert(1)">'
HOSTILE = [
    SCRIPT,
    IMAGE,
    '"><svg onload=alert(1)><iframe src="javascript:alert(1)"></iframe>',
    "' onfocus='alert(1)' autofocus='",
    "</title></style></textarea></script><script>alert(1)</script>",
    "{{7*7}}{% raw %}${7*7}#{7*7}",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "\u202eevil\u2066\u2067txt.exe",
    "مرحبا بالعالم",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324algo" + "\u0336" * 60,
    "👩‍👩‍👧‍👦🏳️‍🌈\U0001f600",
    "\x01\x02\x1b[31m\x7f\x85",
    "a\nb\tc\r\nd",
    "x" * 10_000,
    "..",
    "../../etc/passwd",
    "a/b?c#d&e=f",
    "%00%2e%2e%2f%",
    "100% <b>bold</b> & co; DROP TABLE lists; --",
    "\ufeff\u00a0\u2028\u2029\u200b",
    "&lt;script&gt;&#60;",
    "=HYPERLINK(1)",
    "",
]
"""As ids and as titles."""

_CONFIG: dict[str, Any] = {
    "name": "hostile",
    "titles": {"path": "titles.parquet", "kind_column": "kind"},
    "prepare": {"min_user_items": 3, "window_days": 14},
    "model": {"name": "linear-path-vae", "hidden_dims": [], "latent_dim": 4},
    "training": {"epochs": 2, "batch_size": 20},
    "gates": dict.fromkeys(("margin_live", "margin_best", "margin_baseline", "margin_cohort"), 1.0),
    "rows": {"main": {"k": 10}},
}


def live_hostile(folder: Path) -> Service:
    """Two weeks of events, one model, one day's lists."""
    service = configure(folder, _CONFIG)
    items = [*HOSTILE, *(f"plain {n}" for n in range(12))]
    titles = [one + " " for one in HOSTILE] + [None] * 6 + [""] * 6
    kinds = ["movie"] * len(items)
    pq.write_table(
        pa.table({"item_id": items, "title": titles, "kind": kinds}), folder / "titles.parquet"
    )
    users = [*HOSTILE, *(f"user {n}" for n in range(100))]
    random = np.random.default_rng(3)
    for day in (FIRST_DAY + timedelta(days=n) for n in range(14)):
        seen = [
            (user, items[n], at(day)) for user in users for n in random.integers(len(items), size=2)
        ]
        write_events(folder, day, seen)
    weekly(service, TODAY, device="cpu")
    daily(service, TODAY)
    return service
