"""A study shared among processes of this machine, each of which looks for trials itself.

The parent hands out nothing: it starts the others, reports on the study, passes a signal on and
waits.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from coterie.errors import ConfigError, CoterieError
from coterie.running.interrupt import StopRequest
from coterie.running.progress import Progress
from coterie.tuning.result import TuningResult
from coterie.tuning.study import StudyFolder
from coterie.tuning.work import Effort, interrupted, update_of

_POLL_SECONDS = 0.2


def share(
    study: StudyFolder, data: Path | None, effort: Effort, jobs: int, progress: Progress
) -> None:
    """Starts ``jobs`` processes on a study and waits for them; threads are shared out, too, unless
    OMP_NUM_THREADS says otherwise.

    Args:
        study: Opened.
        data: Folder of its data set.
        effort: How it is worked on.
        jobs: Processes.
        progress: Called whenever a trial has finished.

    Raises:
        ConfigError: if the data set is not in a folder, where the others could find it.
        Interrupted: if a signal asked for a stop; every process has stopped, with a checkpoint of
            its trial.
        CoterieError: if one of the processes failed.
    """
    if data is None:
        raise ConfigError(
            "several jobs read the data set from its folder, this one is in memory only; save and"
            " load it, or take one job."
        )
    # One that was started with the terminal's Ctrl-C, too, would hear of it twice: in sessions of
    # their own they hear it from here. Their standard input stays open as long as this process
    # lives.
    command = [
        sys.executable,
        "-m",
        "coterie.tuning.work",
        str(study.path),
        str(data),
        json.dumps(effort.as_json()),
    ]
    environment = {"OMP_NUM_THREADS": str(max(1, _cores() // jobs)), **os.environ}
    with StopRequest() as stop:
        processes = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, env=environment, start_new_session=True
            )
            for _ in range(jobs)
        ]
        try:
            _wait(study, processes, lambda result: progress(update_of(result, effort)), stop)
        finally:
            for process in processes:
                process.kill()
                process.communicate()
    if stop.signal_number is not None:
        raise interrupted(study, stop.signal_number)


def _wait(
    study: StudyFolder,
    processes: list["subprocess.Popen[bytes]"],
    report: Callable[[TuningResult], None],
    stop: StopRequest,
) -> None:
    alive, reported, stopping = True, -1, False
    while alive:
        # Asked before the study is read, so that the last trials are reported, too.
        alive = any(process.poll() is None for process in processes)
        result = study.result()
        if result.n_finished > reported:
            reported = result.n_finished
            report(result)
        if not stopping and (stop.signal_number is not None or _failures(processes)):
            stopping = True
            for process in processes:
                process.terminate()
        time.sleep(_POLL_SECONDS)
    if stop.signal_number is None and (failures := _failures(processes)):
        raise CoterieError(
            f"{study.path}: a process of the study ended with {failures[0]}, what it said is above;"
            " the others were stopped, and the same command goes on."
        )


def _failures(processes: list["subprocess.Popen[bytes]"]) -> list[int]:
    return [code for process in processes if (code := process.poll())]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
