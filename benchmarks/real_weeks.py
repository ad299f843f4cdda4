"""Twelve real weeks of a service: weekly training and daily lists on MovieTweetings.

    python benchmarks/real_weeks.py movietweetings/ratings.dat --json FILE

Every rating of 7 and more is an event of its day. Each Monday the week before is trained on, from
the live model and anew, held against the gates, and the lists of the day are published.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

from coterie.jobs.config import FILE, Service
from coterie.jobs.daily import daily
from coterie.jobs.weekly import weekly
from coterie.store import open_store

_FILE = """\
name = "movietweetings"

[events]
path = "events/%Y-%m-%d.csv"
user_id_type = "integer"
item_id_type = "text"

[prepare]
min_user_items = 5
min_item_users = 2

[model]
name = "mult-vae"
keep_prob = 0.3
beta = 0.35

[training]
learning_rate = 1.1e-3
epochs = 40
patience = 4
metric = "ndcg@20"

[gates]
volume = [0.1, 5.0]
margin_live = 0.05
margin_best = 0.10
margin_baseline = 0.25
margin_cohort = 0.25
live_on_new_days = 0.4

[rows.main]
k = 100
"""


def write_days(ratings: Path, folder: Path) -> None:
    """A CSV a day, of ratings of 7 and more."""
    rows = sorted(_liked(ratings))
    folder.mkdir(parents=True)
    for day, those in groupby(rows, key=lambda row: row[0]):
        lines = [f"{user},{item},{seconds}" for _, seconds, user, item in those]
        text = "\n".join(["user_id,item_id,timestamp", *lines]) + "\n"
        (folder / f"{day}.csv").write_text(text, encoding="utf-8")


def _liked(ratings: Path) -> Iterator[tuple[date, int, str, str]]:
    for line in ratings.read_text(encoding="utf-8").splitlines():
        user, item, rating, seconds = line.split("::")
        if float(rating) >= 7:
            yield datetime.fromtimestamp(int(seconds), UTC).date(), int(seconds), user, item


def week(service: Service, monday: date) -> dict[str, Any]:
    """What a Monday's jobs came to."""
    result = weekly(service, monday, device="cpu")
    published = daily(service, monday)
    against = result.facts["against"]
    starts = result.facts["training"]["starts"]
    return {
        "week": result.week.isoformat(),
        "live": result.live,
        "failed": [gate.name for gate in result.failed],
        "users": result.facts["test"]["users"],
        "starts": starts,
        "start": result.facts["training"]["start"],
        "against": against,
        "overlap": published.figures["overlap"],
        "unknown_items": published.figures["unknown_items"],
        "seconds": result.facts["seconds"]["all"],
    }


def table(weeks: list[dict[str, Any]]) -> str:
    """A line a week, in Markdown."""
    lines = [
        "| week of | users | candidate | live | EASE | popularity | warm at | cold at | gates |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*lines, *map(_line, weeks)])


def _line(one: dict[str, Any]) -> str:
    against = one["against"]
    mean = f"{against['popularity']['candidate']:.4f}"
    others = [_of(against.get(name)) for name in ("live", "ease", "popularity")]
    starts = [_start(one, name) for name in ("warm", "cold")]
    failed = ", ".join(one["failed"]) or "passed"
    cells = [one["week"], f"{one['users']:,}", mean, *others, *starts, failed]
    return "| " + " | ".join(cells) + " |"


def _of(found: dict[str, Any] | None) -> str:
    if found is None:
        return "–"
    gain = f"{found['difference']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"
    return f"{found['other']:.4f} ({gain})"


def _start(one: dict[str, Any], name: str) -> str:
    start = one["starts"].get(name)
    if start is None:
        return "–"
    chosen = " ✓" if one["start"] == name else ""
    return f"{start['validation']:.4f} at {start['epochs']}{chosen}"


def main() -> None:
    """Reads the options, runs, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ratings", type=Path)
    parser.add_argument("--weeks", type=int, default=12)
    parser.add_argument("--folder", type=Path, help="gone on with, if it is there")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="real-weeks-"))
    if not (folder / FILE).exists():
        write_days(options.ratings, folder / "events")
        (folder / FILE).write_text(_FILE, encoding="utf-8")
    service, last = Service.load(folder), date(2013, 9, 2)
    weeks = []
    for n in reversed(range(options.weeks)):
        weeks.append(week(service, last - timedelta(weeks=n)))
        print(_line(weeks[-1]), flush=True)
    print(table(weeks))
    with open_store(service.place(service.config.store.url)) as store:
        print(f"{len(store.editions())} days published")
    if options.json:
        options.json.write_text(json.dumps(weeks, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
