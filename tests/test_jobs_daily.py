"""The daily job: everybody's lists by the rules of each card row, and what is watched of them."""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest

from coterie.errors import ConfigError, ConflictError, DataError, NotFoundError, UnavailableError
from coterie.jobs.config import Service, WatchConfig, days_of
from coterie.jobs.daily import METRICS, DailyResult, EngineName, daily
from coterie.jobs.watching import HELP, prometheus, warnings
from coterie.jobs.weekly import locked
from coterie.registry import Registry
from coterie.running.execution import using_threads
from coterie.running.progress import Update
from coterie.training.trained_model import TrainedModel
from small_service import (
    FIRST,
    LAST,
    TINY,
    all_lists,
    at,
    configure,
    copy_of,
    store_of,
    write_events,
)

Run = Callable[..., int]


@pytest.fixture
def service(eight_weeks: Path, tmp_path: Path) -> Service:
    """Eight weeks, and no lists of the Monday after yet."""
    return copy_of(Service.load(eight_weeks), tmp_path / "service")


def lists(service: Service, day: date | None = None) -> dict[str, Any]:
    with store_of(service) as store:
        return all_lists(store, None if day is None else day.isoformat())


def live_day(service: Service) -> str:
    with store_of(service) as store:
        live = store.live()
    assert live is not None
    return live.name


def model_of(service: Service) -> TrainedModel:
    live = Registry(service.registry).live
    assert live is not None
    return TrainedModel.load(live.model)


def histories(service: Service, day: date) -> dict[int, set[int]]:
    """What everybody did in the window before a day, read from the source."""
    first = day - timedelta(days=service.config.prepare.window_days)
    seen: dict[int, set[int]] = {}
    for one in days_of(first, day):
        for path in (service.folder / "events" / f"day={one}").glob("*.parquet"):
            for row in pq.read_table(path).to_pylist():
                seen.setdefault(row["user_id"], set()).add(row["item_id"])
    return seen


def state(folder: Path) -> dict[str, int]:
    """When each file was written, but for locks, what the store notes and when a job ran."""
    return {
        str(path): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock" and not path.name.startswith("control.")
        if "attempts" not in path.parts
    }


def unknown_to(model: TrainedModel, seen: Mapping[int, set[int]]) -> set[int]:
    """Users of whose items a model knows none."""
    items = set(model.items.ids_of(range(model.n_items)))
    return {user for user, mine in seen.items() if not mine & items}


def test_twice_changes_nothing(service: Service) -> None:
    first = daily(service, LAST)
    assert (first.published, live_day(service)) == (True, str(LAST))
    before, published = state(service.folder), lists(service)
    second = daily(service, LAST)
    assert second == DailyResult(LAST, first.version, second.figures, first.warnings, False)
    assert second.figures == json.loads(json.dumps(first.figures))
    assert (state(service.folder), lists(service)) == (before, published)
    assert not (service.work / "daily" / str(LAST)).exists()


def test_everybody_with_a_history_has_lists_of_the_model(service: Service) -> None:
    daily(service, LAST)
    found, seen, model = lists(service), histories(service, LAST), model_of(service)
    assert {int(name.split()[0]) for name in found if name[0] != "n"} == set(seen)
    user = next(iter(seen))
    titles = pq.read_table(service.folder / "titles.parquet").to_pylist()
    open_now = [one["item_id"] for one in titles if is_open(one, LAST)]
    known = [item for item in open_now if item in set(model.items.ids_of(range(model.n_items)))]
    expected = model.recommend({user: sorted(seen[user])}, k=20, allow=known).table
    assert found[f"{user} main"][0] == expected["item_id"].to_pylist()
    np.testing.assert_allclose(found[f"{user} main"][1], expected["score"], rtol=1e-5)
    movies = {one["item_id"] for one in titles if one["kind"] == "movie"}
    strangers = {"nobody", *map(str, unknown_to(model, seen))}
    for name, (items, _, source, _) in found.items():
        assert source == ("popularity" if name.split()[0] in strangers else "model")
        assert len(items) <= (20 if name.endswith("main") else 10)
        assert set(items) <= (movies & set(known) if name.endswith("movies") else set(known))
        if not name.startswith("nobody"):
            assert not set(items) & seen[int(name.split()[0])]


def is_open(title: Mapping[str, Any], day: date) -> bool:
    first, until = title["available_from"], title["available_until"]
    return (first is None or first <= day) and (until is None or day < until)


def test_a_past_day_is_filled_in_and_the_newer_one_stays(service: Service) -> None:
    """With what was known before that day, and by the model of today."""
    newest, past = live_day(service), LAST - timedelta(days=10)
    before = lists(service)
    result = daily(service, past)
    assert (result.published, live_day(service), lists(service)) == (True, newest, before)
    found = lists(service, past)
    assert {int(name.split()[0]) for name in found if name[0] != "n"} == set(
        histories(service, past)
    )
    assert result.figures["model_age_days"] < 0
    assert daily(service, LAST).published
    assert live_day(service) == str(LAST)


def test_rules_of_rows(service: Service) -> None:
    """Only what is allowed; not what is denied; and what was watched, where that is kept."""
    daily(service, LAST)
    plain, seen, model = lists(service), histories(service, LAST), model_of(service)
    best = plain["nobody main"][0]
    (service.folder / "deny.txt").write_text(f"\ufeff{best[0]}\n\n {best[1]} \n")
    (service.folder / "allow.txt").write_text("\n".join(map(str, best[:6])))
    rows = {
        "main": {"k": 20, "deny": "deny.txt"},
        "few": {"k": 20, "allow": "allow.txt", "deny": "deny.txt"},
        "again": {"k": 5, "watched": "keep"},
    }
    configure(service.folder, TINY, rows=rows)
    service = Service.load(service.folder)
    assert daily(service, LAST).published
    found = lists(service)
    assert {name.split()[1] for name in found} == {"main", "few", "again"}
    for name, (items, *_) in found.items():
        user, row = name.split()
        if row != "again":
            assert not {best[0], best[1]} & set(items)
        if row == "few":
            assert set(items) <= set(best[2:6])
        if row == "again" and user != "nobody":
            assert len(items) == 5
    assert any(
        set(found[f"{user} again"][0]) & seen[user] for user in seen if f"{user} again" in found
    )
    assert model.n_items > 20


def test_a_title_that_is_denied_during_the_day_goes_the_same_day(service: Service) -> None:
    path = service.folder / "deny.txt"
    path.write_text("")
    service = configure(service.folder, TINY, rows={"main": {"k": 5, "deny": "deny.txt"}})
    daily(service, LAST)
    assert not daily(service, LAST).published
    gone = lists(service)["nobody main"][0][0]
    path.write_text(str(gone))
    assert daily(service, LAST).published
    assert all(gone not in items for items, *_ in lists(service).values())


def test_a_title_whose_window_ends_is_gone_on_that_day(service: Service) -> None:
    path = service.folder / "titles.parquet"
    daily(service, LAST)
    gone = lists(service)["nobody main"][0][0]
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        if row["item_id"] == gone:
            row["available_until"] = LAST + timedelta(days=1)
    schema = pq.read_schema(path)
    pq.write_table(pq.read_table(path).from_pylist(rows, schema=schema), path)
    tomorrow = LAST + timedelta(days=1)
    for day, there in ((LAST, True), (tomorrow, False)):
        daily(service, day)
        assert (gone in lists(service, day)["nobody main"][0]) == there


def test_a_row_that_may_show_nothing_is_refused(service: Service) -> None:
    service = configure(service.folder, TINY, rows={"main": {"kinds": ["opera"]}})
    with pytest.raises(ConfigError, match="must have a title to show"):
        daily(service, LAST)
    service = configure(service.folder, TINY, rows={"main": {"allow": "none.txt"}})
    with pytest.raises(NotFoundError, match=r"none\.txt"):
        daily(service, LAST)
    assert live_day(service) < str(LAST)


def test_new_users_are_served_from_their_first_event(service: Service) -> None:
    """9999 by the model, from one item; 9998, whose item is unknown, by the fall-back, marked."""
    yesterday, model = LAST - timedelta(days=1), model_of(service)
    known = model.items.ids_of([0])[0]
    rows = [(9999, known, at(yesterday)), (9998, 10**6, at(yesterday))]
    write_events(service.folder, yesterday, [(*row, 1.0) for row in rows], "more.parquet")
    result = daily(service, LAST)
    with store_of(service) as store:
        one, other, nobody = store.find(9999), store.find(9998), store.fallback()
        stranger = store.find(5_000_000)
    assert one is not None
    assert other is not None
    assert nobody is not None
    assert (one.source, other.source, nobody.source) == ("model", "popularity", "popularity")
    assert other.item_ids == nobody.item_ids
    assert known not in one.item_ids
    assert stranger is None
    strangers = unknown_to(model, histories(service, LAST))
    assert 9998 in strangers
    share = result.figures["fallback_share"]
    assert share == pytest.approx(len(strangers) / result.figures["users"])


def test_what_is_old_goes(service: Service) -> None:
    daily(service, LAST)
    configure(service.folder, TINY, retention={"editions": 2, "days": 60})
    service = Service.load(service.folder)
    daily(service, LAST)
    with store_of(service) as store:
        names = [one.name for one in store.editions()]
    assert names == [str(LAST), str(LAST - timedelta(weeks=1))]
    first = min(date.fromisoformat(path.stem) for path in (service.work / "days").iterdir())
    assert first == max(LAST - timedelta(days=60), FIRST - timedelta(weeks=4))


def test_half_a_day_that_a_kill_left_is_in_nobodys_way(service: Service) -> None:
    """It is removed a day later: until then it may be a weekly run's that is writing it."""
    old, new = (service.work / "days" / f".{LAST}.{mark}.part.parquet" for mark in ("a", "b"))
    for path in (old, new):
        path.touch()
    os.utime(old, (1, 1))
    daily(service, LAST)
    assert (old.exists(), new.exists()) == (False, True)


def test_figures_as_loops(service: Service) -> None:
    """Of lists, those of the first card row; of events, those of yesterday."""
    result = daily(service, LAST)
    found, model = lists(service), model_of(service)
    earlier = lists(service, LAST - timedelta(weeks=1))
    mine = {name: one[0] for name, one in found.items() if name.endswith("main") and name[0] != "n"}
    shown = [item for items in mine.values() for item in items]
    index = dict(zip(model.items.ids_of(range(model.n_items)), range(model.n_items), strict=True))
    yesterday = rows_of(service, LAST - timedelta(days=1))
    watched = [model.popularity[index[row[1]]] for row in yesterday if row[1] in index]
    popularity = [model.popularity[index[item]] for item in shown]
    unknown = [row[1] for row in yesterday if row[1] not in index]
    usual = median(len(rows_of(service, LAST - timedelta(days=1, weeks=n))) for n in range(1, 5))
    overlaps = [
        len(set(items) & set(earlier[name][0])) / len(items)
        for name, items in mine.items()
        if name in earlier
    ]
    users = {row[0] for row in yesterday}
    expected = {
        "users": len(mine),
        "fallback_share": len(unknown_to(model, histories(service, LAST))) / len(mine),
        "coverage": len(set(shown)) / model.n_items,
        "popularity": np.mean(popularity) / np.mean(watched),
        "overlap": np.mean(overlaps),
        "events": len(yesterday),
        "active_users": len(users),
        "events_per_user": len(yesterday) / len(users),
        "events_over_usual": len(yesterday) / usual,
        "new_items": len(set(unknown)),
        "unknown_items": len(unknown) / len(yesterday),
        "model_age_days": 7,
    }
    figures = {name: result.figures[name] for name in expected}
    assert figures == pytest.approx(expected)
    assert set(result.figures) - set(expected) == {"seconds", "peak_mib"}
    with store_of(service) as store:
        (note,) = store.notes("daily", limit=1)
    assert (note.name, note.values["figures"]) == (str(LAST), result.figures)


def rows_of(service: Service, day: date) -> set[tuple[Any, ...]]:
    path = service.folder / "events" / f"day={day}" / "events.parquet"
    return {tuple(row.values()) for row in pq.read_table(path).to_pylist()}


WATCH = WatchConfig()


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("fallback_share", 0.3, 0.301),
        ("unknown_items", 0.2, 0.201),
        ("model_age_days", 10, 11),
        ("overlap", 0.2, 0.199),
        ("events_over_usual", 0.5, 0.499),
        ("events_over_usual", 2.0, 2.001),
    ],
)
def test_warnings_each_at_its_bound(name: str, inside: float, outside: float) -> None:
    assert not list(warnings(WATCH, {name: inside}))
    assert not list(warnings(WATCH, {name: None}))
    (warning,) = warnings(WATCH, {name: outside})
    assert warning.startswith(name.replace("_", " "))
    assert warning.endswith(".")


def test_prometheus_tells_every_figure_that_is_there() -> None:
    figures = dict.fromkeys(HELP, 1.5)
    text = prometheus({**figures, "overlap": None, "unknown": 1}, 2)
    values = [line for line in text.splitlines() if line[0] != "#"]
    assert len(values) == len(HELP)
    assert values[-1] == "coterie_daily_warnings 2"
    assert "overlap" not in text


def test_the_live_days_figures_lie_where_prometheus_finds_them(service: Service) -> None:
    path = service.work / METRICS
    result = daily(service, LAST)
    assert path.read_text(encoding="utf-8") == prometheus(result.figures, len(result.warnings))
    before = path.stat().st_mtime_ns
    daily(service, LAST - timedelta(days=3))
    assert path.stat().st_mtime_ns == before


def test_what_a_day_needs(service: Service, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="a model must be live"):
        daily(configure(tmp_path / "empty", {}), LAST)
    with pytest.raises(DataError, match="there must be events before"):
        daily(service, FIRST - timedelta(weeks=9))
    with locked(service, "daily"), pytest.raises(ConflictError, match="another daily run"):
        daily(service, LAST)
    away = {"store": {"url": "postgresql://ann:s3cr3t@127.0.0.1:1/none"}}
    with pytest.raises(UnavailableError) as raised:
        daily(configure(service.folder, {**TINY, **away}), LAST)
    assert "s3cr3t" not in str(raised.value)


def test_ids_that_are_text_since_yesterday_are_the_same_people(service: Service) -> None:
    yesterday = LAST - timedelta(days=1)
    plain = daily(service, LAST)
    path = service.folder / "events" / f"day={yesterday}" / "events.parquet"
    rows = [(str(user), str(item), *more) for user, item, *more in rows_of(service, yesterday)]
    write_events(service.folder, yesterday, rows)
    before = lists(service)
    text = daily(service, LAST)
    assert path.is_file()
    assert text.published
    assert without_cost(text.figures) == pytest.approx(without_cost(plain.figures))
    assert lists(service).keys() == before.keys()


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray on this machine, which several runs use."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        few = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        ray.init(
            "local", include_dashboard=False, log_to_driver=False, logging_level="error", **few
        )
        yield
        ray.shutdown()


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_ray_and_this_process_publish_the_same_bytes(
    service: Service, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """However many threads this process has: products of few users are rounded by their number."""
    dumps: list[Dump] = []
    asked: list[bytes] = []

    def keep_request(update: Update) -> None:
        if "publishing" in update.work:
            asked.append((one.work / "daily" / str(LAST) / "main" / "_request.json").read_bytes())

    for engine in get_args(EngineName):
        one = copy_of(service, tmp_path / engine)
        if kind == "postgres":
            url = request.getfixturevalue("postgres_url")
            one = configure(one.folder, TINY, store={"url": url})
        with using_threads(4):
            daily(one, LAST, engine=engine, progress=keep_request)
        dumps.append(of_sqlite(one) if kind == "sqlite" else of_postgres(url))
    assert len(dumps[0]["lists"]) > 500
    assert dumps[0] == dumps[1]
    assert asked[0] == asked[1]


Dump = dict[str, list[tuple[Any, ...]]]


def of_sqlite(service: Service) -> Dump:
    """Every table of a store, whole, but for when and where it was written."""
    folder = service.folder / "store"
    with closing(sqlite3.connect(folder / "control.sqlite")) as database:
        found, place = of_control(database), "SELECT place FROM editions WHERE name = ?"
        (name,) = database.execute(place, (str(LAST),)).fetchone()
    with closing(sqlite3.connect(folder / "editions" / name)) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
            found[table] = database.execute(f"SELECT * FROM {table}").fetchall()
    return found


def of_postgres(url: str) -> Dump:
    """As `of_sqlite`; the store is emptied."""
    import psycopg  # noqa: PLC0415

    with psycopg.connect(url) as connection:
        database: Any = connection
        database.execute("SET search_path = coterie")
        place = f"SELECT place, details, catalogue FROM editions WHERE name = '{LAST}'"
        ((table, *contents),) = database.execute(place).fetchall()
        lists = database.execute(f"SELECT * FROM {table}").fetchall()
        found = {**of_control(database), "contents": [tuple(contents)], "lists": lists}
        database.execute("DROP SCHEMA coterie CASCADE")
    return found


def of_control(database: Any) -> Dump:
    """What a store's register holds of the day, without the run's seconds and memory."""

    def same(text: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(text)
        return told | {"figures": without_cost(told["figures"])}

    of_day = f"WHERE name = '{LAST}'"
    editions = database.execute(f"SELECT name, n_users, facts FROM editions {of_day}").fetchall()
    notes = database.execute(f"SELECT kind, name, told FROM notes {of_day}").fetchall()
    return {
        "editions": [(*one, same(facts)) for *one, facts in editions],
        "notes": [(*one, same(told)) for *one, told in notes],
        "pointer": database.execute("SELECT * FROM pointer").fetchall(),
    }


def without_cost(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in figures.items() if name not in ("seconds", "peak_mib")}


def test_the_verb_says_what_it_published(
    service: Service, tmp_path: Path, run_coterie: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "daily.json"
    for what in ("published", "there already"):
        assert run_coterie("daily", service.folder, "--date", LAST, "--json", out) == 0
        assert what in capfd.readouterr().out
    assert json.loads(out.read_text())["day"] == str(LAST)
    assert run_coterie("rollback", service.folder, "--day", LAST - timedelta(weeks=1)) == 0
    assert live_day(service) == str(LAST - timedelta(weeks=1))
    assert run_coterie("rollback", service.folder, "--day", "2020-01-01") == 6
    assert run_coterie("daily", service.folder, "--date", "yesterday") == 2
