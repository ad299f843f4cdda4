"""The service that lives on disk: files that the reader takes, and a log that breaks on purpose."""

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coterie.data.prepare import prepare
from coterie.data.read import read_log
from coterie.data.rules import TimeSplit
from coterie.data.split import Part
from coterie.errors import ConfigError, CoterieError
from coterie.running.progress import Update
from coterie.simulation.broken import Broken, Fault
from coterie.simulation.living import LivingService

SERVICE = LivingService(n_users=600, n_items=120, weeks=3, seed=5)
START = SERVICE.first_day


def day(number: int) -> date:
    return START + timedelta(days=number)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "service"
    SERVICE.write(path, START, SERVICE.last_day)
    return path


def file_of(folder: Path, number: int) -> Path:
    return folder / "events" / f"day={day(number)}" / "events.parquet"


def test_write_holds_events_by_day_and_the_titles_of_the_last(folder: Path) -> None:
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    days = [f"events/day={day(number)}/events.parquet" for number in range(21)]
    assert files == [*days, "titles.parquet"]
    assert pq.read_table(folder / "titles.parquet").equals(SERVICE.titles(day(20)))
    with pq.ParquetFile(file_of(folder, 11)) as file:
        assert file.read().equals(SERVICE.events(day(11)))


def test_write_of_one_day_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    for number in (20, 3):
        SERVICE.write(tmp_path, day(number), day(number))
        alone, together = file_of(tmp_path, number), file_of(folder, number)
        assert alone.read_bytes() == together.read_bytes()
    assert pq.read_table(tmp_path / "titles.parquet").equals(SERVICE.titles(day(3)))


def test_write_of_several_blocks_of_users(tmp_path: Path) -> None:
    service = LivingService(20_000, 60, 1)
    service.write(tmp_path, START, day(1))
    with pq.ParquetFile(file_of(tmp_path, 1)) as file:
        assert file.num_row_groups == 2
        assert file.read().equals(service.events(day(1)))


def test_write_that_fails_leaves_the_older_files(tmp_path: Path) -> None:
    SERVICE.write(tmp_path, START, START)
    older = file_of(tmp_path, 0).read_bytes()

    def refuse(_: Update) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LivingService(600, 120, 3, seed=6).write(tmp_path, START, day(1), refuse)
    assert file_of(tmp_path, 0).read_bytes() == older
    assert not list(file_of(tmp_path, 1).parent.iterdir())
    assert [path.name for path in file_of(tmp_path, 0).parent.iterdir()] == ["events.parquet"]


def test_write_of_days_that_are_not_of_the_log_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="days must be from"):
        SERVICE.write(tmp_path / "new", START, day(21))
    assert not (tmp_path / "new").exists()


def test_written_days_are_a_log_to_the_reader(folder: Path) -> None:
    n_rows = sum(SERVICE.events(day(number)).num_rows for number in range(21))
    with read_log(
        folder / "events",
        titles=folder / "titles.parquet",
        partitions=True,
        timestamp_column="timestamp",
        rating_column="value",
    ) as log:
        assert log.n_rows == n_rows
        assert log.titles is not None
        assert log.titles["1"] == SERVICE.titles(START)["title"][0].as_py()


def test_written_days_are_prepared_by_time(folder: Path) -> None:
    cut = day(14)
    data = prepare(
        folder / "events",
        titles=folder / "titles.parquet",
        partitions=True,
        timestamp="timestamp",
        split=TimeSplit(test_from=cut, validation_days=0),
    )
    cases = data.cases(Part.TEST)
    assert data.n_items <= SERVICE.titles(day(20)).num_rows
    assert len(cases.user_index) > 100
    # The law of the window ranks what is to be found above what is not.
    users, items = data.users.ids_of(cases.user_index), data.items.ids_of(range(data.n_items))
    law = SERVICE.probabilities(users, day(17))[:, np.asarray(items) - 1]
    assert law[cases.held_out.toarray() > 0].mean() > 2 * law.mean()


# Broken on purpose.


def test_half_of_the_log_is_missing_on_the_broken_days_alone(tmp_path: Path) -> None:
    broken = Broken(SERVICE, "half", day(5), day(7))
    broken.write(tmp_path, day(4), day(7))
    for number, is_broken in ((4, False), (5, True), (6, True), (7, False)):
        true, found = SERVICE.events(day(number)), broken.events(day(number))
        odd = true["user_id"].to_numpy() % 2 == 1
        assert found.equals(true.filter(pa.array(odd)) if is_broken else true)
        with pq.ParquetFile(file_of(tmp_path, number)) as file:
            assert file.read().equals(found)
        assert 0.4 < odd.mean() < 0.6


def test_shuffled_ids_stand_for_other_titles_always_the_same() -> None:
    broken = Broken(SERVICE, "shuffled", day(5))
    assert broken.events(day(4)).equals(SERVICE.events(day(4)))
    other: dict[int, int] = {}
    for number in (5, 20):
        true, found = SERVICE.events(day(number)), broken.events(day(number))
        assert found.drop_columns("item_id").equals(true.drop_columns("item_id"))
        pairs = zip(true["item_id"].to_pylist(), found["item_id"].to_pylist(), strict=True)
        assert all(other.setdefault(item, stand_in) == stand_in for item, stand_in in pairs)
    assert len(set(other.values())) == len(other)
    assert np.mean([item != stand_in for item, stand_in in other.items()]) > 0.8
    assert max(other.values()) <= SERVICE.titles(day(20)).num_rows


def test_broken_keeps_the_true_law_titles_and_users() -> None:
    broken = Broken(SERVICE, "shuffled", START)
    assert broken.titles(day(9)).equals(SERVICE.titles(day(9)))
    assert np.array_equal(broken.users(day(9)), SERVICE.users(day(9)))
    law = broken.probabilities([7, 9], day(9))
    assert np.array_equal(law, SERVICE.probabilities([7, 9], day(9)))


@pytest.mark.parametrize(("how", "until"), [("torn", None), ("half", START)])
def test_broken_in_no_known_way_is_refused(how: Fault, until: date | None) -> None:
    with pytest.raises(CoterieError, match="must be"):
        Broken(SERVICE, how, START, until)
