"""How work runs: device and threads as one value, stopping, progress on the console, logs."""

import json
import logging
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import torch

from coterie.cli.console import drawn
from coterie.data.prepare import prepare
from coterie.data.read import read_log
from coterie.data.rules import PrepareRules
from coterie.errors import ConfigError, DataError, Interrupted
from coterie.running.execution import Execution, using_threads
from coterie.running.interrupt import StopRequest, stoppable
from coterie.running.logs import show_logs
from coterie.running.progress import Update


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "", "meta", "mps:0", "cpu:0:1"])
def test_a_device_that_is_none_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match="must be auto, cpu or a CUDA device"):
        Execution(device).resolved()


def test_a_cuda_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="cuda:99"):
        Execution("cuda:99").resolved()


@pytest.mark.parametrize("values", [{"precision": "fp8"}, {"threads": 0}])
def test_execution_refuses_values_that_cannot_be_honoured(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        Execution(**values)  # type: ignore[arg-type]


def test_execution_takes_its_threads_and_gives_them_back() -> None:
    before = torch.get_num_threads()
    with Execution("cpu", threads=before + 1).begin() as execution:
        assert torch.get_num_threads() == before + 1
        assert (execution.device, execution.world.size) == ("cpu", 1)
    assert torch.get_num_threads() == before
    with using_threads(None):
        assert torch.get_num_threads() == before


def test_execution_crosses_processes_as_json() -> None:
    asked = Execution("cpu", 2, "bf16", compile=True)
    assert Execution.of_json(json.loads(json.dumps(asked.as_json()))) == asked
    assert Execution.of(asked) is asked


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stoppable_ends_work_at_once_and_closes_what_was_open(number: signal.Signals) -> None:
    before, closed = signal.getsignal(number), []
    with pytest.raises(Interrupted, match="user 3") as caught, stoppable(lambda: "user 3"):  # noqa: PT012
        try:
            signal.raise_signal(number)
        finally:
            closed.append(True)
    assert (caught.value.exit_code, closed) == (128 + number, [True])
    assert signal.getsignal(number) == before


def test_stoppable_knows_a_stop_behind_another_librarys_error() -> None:
    with pytest.raises(Interrupted), stoppable(lambda: "stopped."):  # noqa: PT012
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise RuntimeError("Query interrupted") from error


@pytest.mark.parametrize("error", [DataError("bad"), RuntimeError("bug")])
def test_stoppable_lets_other_errors_through(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)), stoppable(lambda: "stopped."):
        raise error


def stop_in_epoch_3() -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        stop.check(lambda: "epoch 3")


def test_stoppable_says_where_the_outer_work_stands() -> None:
    with pytest.raises(Interrupted, match="row 2"), stoppable(lambda: "row 2"):
        stop_in_epoch_3()
    with pytest.raises(Interrupted, match="epoch 3"), stoppable():
        stop_in_epoch_3()


def test_stop_request_checks_only_what_has_come() -> None:
    with StopRequest() as stop:
        stop.check(lambda: "not yet")
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Interrupted, match="epoch 3") as caught:
            stop.check(lambda: "epoch 3")
    assert caught.value.exit_code == 130


def test_other_threads_are_not_stopped() -> None:
    seen: list[str] = []

    def work() -> None:
        with stoppable(lambda: "stopped."), StopRequest() as stop:
            stop.check(lambda: "stopped.")
            seen.append("done")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == ["done"]


def test_logs_are_lines_of_json_with_their_facts() -> None:
    lines: list[str] = []
    show_logs(lines.append, "info", as_json=True, with_progress=False)
    try:
        log = logging.getLogger("coterie.test")
        log.debug("not shown")
        log.info("drawn as a bar", extra={"progress": True})
        log.info("read %d rows", 3, extra={"rows": 3})
        try:
            raise ValueError("bad")
        except ValueError:
            log.exception("failed")
    finally:
        show_logs(lines.append, "error")
    first, second = map(json.loads, lines)
    assert (first["message"], first["rows"], first["level"]) == ("read 3 rows", 3, "info")
    assert first["time"].endswith("+00:00")
    assert "ValueError: bad" in second["exception"]


def test_a_library_says_nothing_until_a_program_shows_its_logs() -> None:
    code = "import logging, coterie; logging.getLogger('coterie.data').info('read'); print('ok')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_progress_is_drawn_for_every_kind_of_work(capsys: pytest.CaptureFixture[str]) -> None:
    with drawn() as progress:
        progress(Update("reading the log"))
        progress(Update("training mult-vae", 0.5, 3, "epochs"))
        facts = {"epoch": 1, "best_epoch": 1, "nll": 3.0, "validation": {"ndcg@10": 0.25}}
        progress(Update("training mult-vae", 1, 3, "epochs", facts))
        progress(Update("recommending", 10, 20, "users"))
    assert capsys.readouterr().out == ""


def test_prepare_stopped_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "".join(f"{user},{item}\n" for user in range(50) for item in range(6))
    (tmp_path / "log.csv").write_text(f"user_id,item_id\n{rows}")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))

    def stop(update: Update) -> None:
        assert list((tmp_path / "temporary").iterdir())
        signal.raise_signal(signal.SIGTERM)

    with (
        pytest.raises(Interrupted) as caught,
        stoppable(lambda: "stopped."),
        read_log(tmp_path / "log.csv") as log,
    ):
        prepare(log, PrepareRules(), stop)
    assert caught.value.exit_code == 143
    assert list((tmp_path / "temporary").iterdir()) == []
