"""The study folder: what is searched, and every trial, shared by all processes that work on it.

study.json       data set, configuration, space, metric, pruner, seed: another one is refused
journal.jsonl    Optuna's log of the trials, one JSON a line
trials/NUMBER/   the run folder of a trial; of a finished one its configuration and history stay
trials.csv       all trials, after each that finishes
best.toml        the configuration of the best one, likewise

A trial belongs to whoever holds its lock. One that is not finished and whose lock is free was
interrupted: the next process that looks for work takes it up under its own number, where its
checkpoint is. Trials begin and end under the lock of the folder, so that none is counted twice.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import numpy as np
from filelock import FileLock

from coterie.config import RunConfig
from coterie.errors import ArtifactError, ConfigError, NotFoundError
from coterie.files import write_json
from coterie.locks import file_lock, try_lock
from coterie.training.run_record import differences
from coterie.tuning.lock import JournalLock
from coterie.tuning.result import (
    Trial,
    TuningResult,
    read_trials,
    write_best,
    write_trials,
)
from coterie.tuning.space import Space, base_in, configured, read_space, suggest, values_of

if TYPE_CHECKING:
    import optuna

Pruner: TypeAlias = Literal["median", "none"]

SCHEMA = "coterie.study/1"


class Pruned(Exception):
    """A trial that is not worth going on with."""


@dataclass(frozen=True)
class Terms:
    """What must stay the same for trials to belong to one study.

    Args:
        dataset: Fingerprint of the data set.
        base: The configuration whose fields are varied.
        space: Which, and where.
        metric: On validation users.
        pruner: Whether a trial ends early whose best value so far is below the median of the
            others' at its epoch.
        seed: Of the search.
    """

    dataset: str
    base: RunConfig
    space: Space
    metric: str
    pruner: Pruner
    seed: int

    def as_json(self) -> dict[str, Any]:
        """JSON values; `of_json` reads them back."""
        search = {key: str(tried) for key, tried in self.space.items()}
        fields_of_search = {
            "dataset": self.dataset,
            "config": self.base.as_json(),
            "search": search,
            "metric": self.metric,
        }
        return {"schema": SCHEMA, **fields_of_search, "pruner": self.pruner, "seed": self.seed}

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Self:
        """From what `as_json` gave; a field that the version of then did not have takes its
        default.
        """
        base = RunConfig.of(values["config"])
        space = read_space(base, [f"{key}={tried}" for key, tried in values["search"].items()])
        return cls(
            values["dataset"], base, space, values["metric"], values["pruner"], values["seed"]
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The terms of a study folder.

        Raises:
            ArtifactError: if it has none, or of another version.
        """
        path = folder / "study.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["schema"] != SCHEMA:
                raise ArtifactError(
                    f"{path}: schema must be {SCHEMA!r}, found {values['schema']!r}; use the"
                    " version that wrote it."
                )
            return cls.of_json(values)
        except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
            raise ArtifactError(
                f"{path}: must hold the terms of a study ({error}); restore it or start anew"
                " elsewhere."
            ) from error


@dataclass(frozen=True)
class Claim:
    """A trial that this process works on, for as long as it holds the lock.

    Args:
        trial: Optuna's.
        values: The fields that were chosen.
        folder: Of the run.
        lock: Held.
        reported: Epochs that were noted before an interruption.
    """

    trial: "optuna.Trial"
    values: dict[str, Any]
    folder: Path
    lock: FileLock
    reported: frozenset[int]

    @property
    def number(self) -> int:
        """Of the trial, from 0."""
        return self.trial.number

    def report(self, epoch: int, value: float) -> None:
        """Notes a validation, unless it already was before an interruption.

        Raises:
            Pruned: if the trial is not worth going on with.
        """
        if epoch not in self.reported:
            self.trial.report(value, epoch)
        self.check()

    def check(self) -> None:
        """Raises `Pruned` if what is noted so far is not worth going on with."""
        if self.trial.should_prune():
            raise Pruned

    def drop_weights(self) -> None:
        """Removes the large files."""
        shutil.rmtree(self.folder / "model", ignore_errors=True)
        (self.folder / "checkpoint.safetensors").unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()


class StudyFolder:
    """A study on disk.

    Args:
        path: Its folder; made if missing.
        terms: What is searched.

    Raises:
        ConfigError: if Optuna is not installed, or the folder holds something else or a study on
            other terms.
        ArtifactError: if its files are damaged.
    """

    def __init__(self, path: Path, terms: Terms) -> None:
        _check_installed()
        self.path, self.terms = path, terms
        self._lock = self._open_folder()
        with self._lock:
            self._agree()
        self._study = _open_study(path / "journal.jsonl", terms)

    def _open_folder(self) -> FileLock:
        if self.path.exists() and not (
            self.path.is_dir() and ((self.path / "study.json").exists() or _empty(self.path))
        ):
            raise ConfigError(
                f"{self.path}: must be a study (with study.json), empty or new, found something"
                " else; choose another folder."
            )
        (self.path / "trials").mkdir(parents=True, exist_ok=True)
        return file_lock(self.path / "study.lock")

    def _agree(self) -> None:
        if not (self.path / "study.json").exists():
            write_json(self.path / "study.json", self.terms.as_json())
            return
        found, wanted = Terms.load(self.path).as_json(), self.terms.as_json()
        if found != wanted:
            raise ConfigError(
                f"{self.path}: a study goes on only on its own terms, {differences(found, wanted)};"
                " choose another folder, or these terms."
            )

    def claim(self, n_trials: int) -> Claim | None:
        """A trial to work on: one that was interrupted, or else a new one; None when ``n_trials``
        have begun.
        """
        from optuna.trial import Trial as OptunaTrial  # noqa: PLC0415
        from optuna.trial import TrialState  # noqa: PLC0415

        with self._lock:
            trials = self._study.get_trials(deepcopy=False)
            for trial in trials:
                running = trial.state == TrialState.RUNNING
                if running and (lock := self._try_lock(trial.number)) is not None:
                    self._study.sampler = _sampler(self.terms.seed, trial.number)
                    return self._claim(OptunaTrial(self._study, trial._trial_id), lock)
            number = sum(trial.state != TrialState.WAITING for trial in trials)
            if number >= n_trials:
                return None
            if not trials:
                # The search begins where its user stands: what it finds is not worse.
                self._study.enqueue_trial(base_in(self.terms.space, self.terms.base))
            # Nobody else has it: trials are taken up under the lock of the folder.
            lock = self._try_lock(number)
            assert lock is not None
            self._study.sampler = _sampler(self.terms.seed, number)
            return self._claim(self._study.ask(), lock)

    def _claim(self, trial: "optuna.Trial", lock: FileLock) -> Claim:
        values = suggest(trial, self.terms.base, self.terms.space)
        reported = self._study.get_trials(deepcopy=False)[trial.number].intermediate_values
        return Claim(trial, values, self._folder_of(trial.number), lock, frozenset(reported))

    def finish(
        self,
        claim: Claim,
        state: Literal["complete", "pruned", "failed"],
        *,
        value: float | None = None,
        **notes: Any,
    ) -> None:
        """Ends a trial, with its value if it is complete, and whatever else is to be noted."""
        from optuna.trial import TrialState  # noqa: PLC0415

        states = {
            "complete": TrialState.COMPLETE,
            "pruned": TrialState.PRUNED,
            "failed": TrialState.FAIL,
        }
        with self._lock:
            for name, note in notes.items():
                claim.trial.set_user_attr(name, note)
            self._study.tell(claim.trial, value, states[state])

    def publish(self, command: str | None) -> TuningResult:
        """Writes trials.csv and, once a trial is complete, best.toml; returns what is in them."""
        with self._lock:
            result = self.result()
            write_trials(self.path / "trials.csv", result)
            if result.best is not None:
                write_best(self.path / "best.toml", result, self.terms.dataset, command)
        return result

    def result(self) -> TuningResult:
        """All trials as they stand."""
        return _result(
            self.path,
            self.terms,
            tuple(
                self._trial(trial)
                for trial in self._study.get_trials(deepcopy=False)
                if trial.state.name != "WAITING"
            ),
        )

    def _trial(self, trial: "optuna.trial.FrozenTrial") -> Trial:
        state = {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower())
        notes = trial.user_attrs
        values = values_of(self.terms.space, trial.params)
        return Trial(
            trial.number,
            state,
            trial.value,
            trial.last_step or 0,
            notes.get("seconds"),
            values,
            notes.get("error"),
        )

    def _folder_of(self, number: int) -> Path:
        return self.path / "trials" / f"{number}"

    def _try_lock(self, number: int) -> FileLock | None:
        return try_lock(self._folder_of(number) / "trial.lock")


def read_study(folder: str | Path) -> TuningResult:
    """A study as trials.csv holds it: as it stood when a trial last finished.

    Needs neither torch nor Optuna, and takes no lock: for pages, also while processes work on it.

    Raises:
        NotFoundError: if there is no such folder.
        ArtifactError: if it is no study, of another version or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotFoundError(f"{folder}: must be a study folder, from tune, none was found there.")
    terms = Terms.load(folder)
    return _result(folder, terms, read_trials(folder / "trials.csv", terms.space, terms.metric))


def _result(folder: Path, terms: Terms, trials: tuple[Trial, ...]) -> TuningResult:
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    best = max(complete, key=lambda trial: (trial.value, -trial.number), default=None)
    config = None if best is None else configured(terms.base, best.values)
    return TuningResult(folder, terms.metric, terms.space, trials, best, config)


def _empty(folder: Path) -> bool:
    """Whether nothing is there but what another process makes that opens the same study."""
    return all(
        path.name in ("trials", "study.lock") or path.name.startswith(".study.")
        for path in folder.iterdir()
    )


def _open_study(journal: Path, terms: Terms) -> "optuna.Study":
    import optuna  # noqa: PLC0415
    from optuna.storages.journal import JournalFileBackend  # noqa: PLC0415

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal.touch()
    # Optuna asks of a lock nothing but acquire and release.
    lock: Any = JournalLock(journal)
    warm_up = terms.base.training.epochs // 10
    pruner = (
        optuna.pruners.MedianPruner(n_warmup_steps=warm_up)
        if terms.pruner == "median"
        else optuna.pruners.NopPruner()
    )
    try:
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal), lock))
        return optuna.create_study(
            study_name="study",
            storage=storage,
            pruner=pruner,
            direction="maximize",
            load_if_exists=True,
        )
    except (ValueError, KeyError, AssertionError) as error:
        raise ArtifactError(
            f"{journal}: must be the log of a study ({error}); restore it or start anew elsewhere."
        ) from error


def _sampler(seed: int, number: int) -> "optuna.samplers.BaseSampler":
    """A function of seed and number, as every draw here: a study that goes on does not draw its
    first trials again.
    """
    from optuna.samplers import TPESampler  # noqa: PLC0415

    return TPESampler(seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))


def _check_installed() -> None:
    if find_spec("optuna") is None:
        raise ConfigError("tuning needs the package optuna; pip install 'coterie[tune]'.")
