"""What a run of a job leaves for those who ask later why there is nothing."""

import json
import os
import signal
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest

from coterie.errors import DataError, NotFoundError
from coterie.jobs.attempts import attempted, attempts
from coterie.jobs.config import Service
from coterie.jobs.daily import daily
from coterie.jobs.weekly import weekly
from small_service import configure

DAY = date(2026, 3, 2)


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return configure(tmp_path / "service", {})


def test_a_failed_run_says_why_and_the_next_replaces_it(service: Service) -> None:
    with pytest.raises(DataError), attempted(service, "daily", DAY):
        raise DataError("there must be events, found none.")
    (failed,) = attempts(service, "daily").items()
    assert failed[0] == DAY
    assert failed[1].error == "there must be events, found none."
    assert failed[1].seconds is not None
    assert 0 <= failed[1].seconds < 5
    with attempted(service, "daily", DAY):
        assert attempts(service, "daily")[DAY].ended is None
    assert attempts(service, "daily")[DAY].error is None
    assert attempts(service, "daily")[DAY].ended is not None
    assert not attempts(service, "weekly")


def test_an_error_that_nobody_foresaw_is_named(service: Service) -> None:
    with pytest.raises(ZeroDivisionError), attempted(service, "weekly", DAY):
        _ = 1 / 0
    assert attempts(service, "weekly")[DAY].error == "ZeroDivisionError: division by zero"


def test_a_killed_run_has_begun_and_not_ended(service: Service) -> None:
    code = (
        "import os, signal, sys\nfrom datetime import date\n"
        "from coterie.jobs.attempts import attempted\nfrom coterie.jobs.config import Service\n"
        "with attempted(Service.load(sys.argv[1]), 'daily', date(2026, 3, 2)):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(service.folder)], check=False)
    assert done.returncode == -signal.SIGKILL
    killed = attempts(service, "daily")[DAY]
    assert (killed.ended, killed.error, killed.seconds) == (None, None, None)


def test_some_of_them_are_kept(service: Service) -> None:
    for n in range(63):
        with attempted(service, "daily", DAY + timedelta(days=n)):
            pass
    kept = attempts(service, "daily")
    assert len(kept) == 60
    assert min(kept) == DAY + timedelta(days=3)


def test_a_note_that_nothing_can_be_read_of_is_none(service: Service) -> None:
    with attempted(service, "daily", DAY):
        pass
    folder = service.work / "attempts" / "daily"
    (folder / "2026-03-03.json").write_text("{")
    (folder / "2026-03-04.json").write_text(json.dumps({"schema": "another/9", "began": ""}))
    (folder / "notes.json").write_text("[]")
    assert list(attempts(service, "daily")) == [DAY]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_stops_no_job(service: Service) -> None:
    service.work.mkdir()
    service.work.chmod(0o500)
    with attempted(service, "daily", DAY):
        pass
    service.work.chmod(0o700)


def test_a_file_where_the_folder_should_be_stops_no_job(service: Service) -> None:
    service.work.mkdir()
    (service.work / "attempts").write_text("in the way")
    with attempted(service, "daily", DAY):
        pass
    assert not attempts(service, "daily")


def test_both_jobs_leave_one(service: Service) -> None:
    """The weekly run's is its Monday's, whatever day it was."""
    with pytest.raises(DataError):
        weekly(service, DAY + timedelta(days=2), device="cpu")
    with pytest.raises(NotFoundError):
        daily(service, DAY)
    assert "no model" not in str(attempts(service, "weekly")[DAY].error)
    assert "a model must be live" in str(attempts(service, "daily")[DAY].error)
