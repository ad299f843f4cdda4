"""The processes that other libraries run in: their environments, threads, questions and answers.

An environment lies in `.venv-rivals/`, made on first use from benchmarks/rivals/NAME.txt. Linux
only.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE / "rivals"
ENVIRONMENTS = HERE.parent / ".venv-rivals"


class FailedError(Exception):
    """A rival could not be installed or run; the message says why."""


def use_threads(n_threads: int) -> None:
    """Inherited by every process: some libraries heed the variables, some the cores they may
    use.
    """
    os.environ |= {f"{name}_NUM_THREADS": str(n_threads) for name in ("OMP", "MKL", "OPENBLAS")}
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n_threads])


def interpreter(requirements: str | None) -> Path:
    """The Python of an environment, made anew when its requirements changed.

    Args:
        requirements: In benchmarks/rivals; None for Coterie's own environment.

    Raises:
        FailedError: if the installation did.
    """
    if requirements is None:
        return Path(sys.executable)
    file = SCRIPTS / requirements
    folder, wanted = ENVIRONMENTS / file.stem, file.read_text()
    python, stamp = folder / "bin" / "python", folder / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing {file.stem} into {folder.relative_to(HERE.parent)}", file=sys.stderr)
    ENVIRONMENTS.mkdir(exist_ok=True)
    (ENVIRONMENTS / ".gitignore").write_text("*\n")
    _install([sys.executable, "-m", "venv", "--clear", str(folder)])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _install([*pip, "--requirement", str(file)])
    stamp.write_text(wanted)
    return python


def _install(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FailedError(f"cannot be installed: {_last_line(done.stderr or done.stdout)}")


def _last_line(text: str) -> str:
    return next(
        (line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing"
    )


class Worker:
    """A script in a process of its own, which answers each line "go" by a line of JSON and sleeps
    in between.

    Args:
        name: Of its messages.
        script: In benchmarks/rivals.
        requirements: As in `interpreter`.
        folder: Where it runs: one that goes away, as some libraries leave logs where they run.
        arguments: Of the script.

    Raises:
        FailedError: if its environment cannot be installed.
    """

    def __init__(
        self,
        name: str,
        script: str,
        requirements: str | None,
        folder: Path,
        arguments: Sequence[str],
    ) -> None:
        command = [str(interpreter(requirements)), str(SCRIPTS / script), *arguments]
        self._errors = (folder / f"{name}.err").open("w+")
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )

    def ask(self) -> dict[str, Any]:
        """Says "go" and waits for the answer.

        Raises:
            FailedError: if the process ended in it.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # answer says how it ended.
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line.

        Raises:
            FailedError: if the process ended instead.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            raise FailedError(f"ended with status {status}: {_last_line(self._errors.read())}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()
