"""What to install so that the jobs run by themselves: lines for cron, units for systemd, a
file for Dagster.
"""

import json
import shlex
import sys
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from coterie.errors import ConfigError
from coterie.jobs.attempts import Job
from coterie.jobs.config import Service, monday

_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def crontab(service: Service) -> dict[str, str]:
    """When each job is to run, as cron says it; times are UTC.

    Raises:
        ConfigError: if a time cannot be understood.
    """
    weekday, weekly = _weekly(service)
    daily = _time(service.config.schedule.daily)
    return {
        "weekly": f"{weekly[1]} {weekly[0]} * * {_WEEKDAYS.index(weekday) + 1}",
        "daily": f"{daily[1]} {daily[0]} * * *",
    }


def due(service: Service, job: Job, day: date) -> datetime:
    """When a job is to run for a day, UTC.

    Args:
        service: The service.
        job: The job.
        day: That it is for; of weekly any of the week that it runs in.

    Raises:
        ConfigError: if a time cannot be understood.
    """
    if job == "weekly":
        weekday, clock = _weekly(service)
        day = monday(day) + timedelta(days=_WEEKDAYS.index(weekday))
    else:
        clock = _time(service.config.schedule.daily)
    return datetime.combine(day, time(*clock), UTC)


def cron(service: Service) -> str:
    """Lines for ``crontab -e``; times are UTC."""
    log = shlex.quote(str(service.folder.absolute() / "jobs.log"))
    lines = ["CRON_TZ=UTC"]
    for job, when in crontab(service).items():
        # To cron a bare % ends the command.
        command = f"{_command(service, job)} >> {log} 2>&1".replace("%", r"\%")
        lines.append(f"{when} {command}")
    return "\n".join(lines) + "\n"


def dagster(service: Service) -> str:
    """A file of definitions for Dagster."""
    folder = str(service.folder.absolute())
    return (
        "# definitions.py; see it by: dagster dev -f definitions.py\n"
        "from coterie.jobs.dagster_assets import definitions\n\n"
        f"defs = definitions({json.dumps(folder, ensure_ascii=False)})\n"
    )


def systemd(service: Service) -> str:
    """A service and a timer a job, each under the name of the file to put it in."""
    weekday, weekly = _weekly(service)
    daily = _time(service.config.schedule.daily)
    times = {
        "weekly": f"{weekday.title()} *-*-* {weekly[0]:02d}:{weekly[1]:02d}:00 UTC",
        "daily": f"*-*-* {daily[0]:02d}:{daily[1]:02d}:00 UTC",
    }
    return "\n".join(_units(service, job, when) for job, when in times.items())


def _units(service: Service, job: str, when: str) -> str:
    name = f"coterie-{service.config.name}-{job}"
    command = _command(service, job).replace("%", "%%").replace("$", "$$")
    return (
        f"# /etc/systemd/system/{name}.service\n[Unit]\nDescription=Coterie: {job} job of"
        f" {service.config.name}\n\n[Service]\nType=oneshot\n"
        # Secrets, one NAME=value a line; the file may be absent.
        f"EnvironmentFile=-/etc/coterie-{service.config.name}.env\nExecStart={command}\n\n"
        f"# /etc/systemd/system/{name}.timer\n[Unit]\nDescription=Coterie: {job} job of"
        f" {service.config.name}\n\n[Timer]\nOnCalendar={when}\nPersistent=true\n\n[Install]\n"
        "WantedBy=timers.target\n"
    )


def _command(service: Service, job: str) -> str:
    program = Path(sys.executable).with_name("coterie")
    return shlex.join([str(program), job, str(service.folder.absolute())])


def _weekly(service: Service) -> tuple[str, tuple[int, int]]:
    weekday, _, clock = service.config.schedule.weekly.lower().partition(" ")
    if weekday[:3] not in _WEEKDAYS:
        raise ConfigError(
            "schedule.weekly must be a weekday and a time, as in Mon 03:00, found"
            f" {service.config.schedule.weekly!r}."
        )
    return weekday[:3], _time(clock)


def _time(text: str) -> tuple[int, int]:
    """Hour and minute.

    Example:
        >>> _time("05:30")
        (5, 30)
    """
    hour, _, minute = text.strip().partition(":")
    if not (hour.isdigit() and minute.isdigit() and int(hour) < 24 and int(minute) < 60):
        raise ConfigError(f"a time must be as in 05:00, found {text!r}.")
    return int(hour), int(minute)
