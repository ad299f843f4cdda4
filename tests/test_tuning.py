"""Tuning: what is searched, on whom it is judged, and studies that are stopped, killed, shared and
gone on with.
"""

import csv
import json
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from coterie.cli import main
from coterie.config import AnyModelConfig, RunConfig, as_toml
from coterie.data.dataset import Dataset
from coterie.data.split import Cases, Part, Split
from coterie.errors import ArtifactError, ConfigError, Interrupted, NotFoundError
from coterie.evaluation.evaluate import evaluate
from coterie.locks import file_lock, try_lock
from coterie.models.fields import SearchChoice, SearchRange
from coterie.running.progress import Update
from coterie.simulation.service import simulate_dataset
from coterie.training.run_record import read_history
from coterie.training.trainer import train
from coterie.tuning.lock import JournalLock
from coterie.tuning.result import Trial, TuningResult, read_trials, write_trials
from coterie.tuning.space import Space, check_space, own_space, read_space
from coterie.tuning.study import Pruned, StudyFolder, Terms, read_study
from coterie.tuning.tune import tune

DATA = simulate_dataset(n_users=260, n_items=50, held_out_users=40, seed=2)
VAE = RunConfig.of(
    {
        "model": {"name": "mult-vae", "hidden_dims": [12], "latent_dim": 6, "anneal_steps": 9},
        "training": {"epochs": 4, "batch_size": 60, "learning_rate": 0.01, "metric": "ndcg@10"},
    }
)
EASE = RunConfig.of({"model": {"name": "ease", "l2": 50.0}})
SPACE: Space = {
    "model.keep_prob": SearchRange(0.3, 0.9),
    "model.latent_dim": SearchRange(2, 12),
    "training.batch_size": SearchChoice((60, 90)),
}
L2: Space = {"model.l2": SearchRange(1, 1000, log=True)}


def told(result: TuningResult) -> list[dict[str, Any]]:
    """The trials without what the clock says."""
    return [{**trial, "seconds": None} for trial in result.to_json()["trials"]]


def terms(**changes: Any) -> Terms:
    return replace(Terms(DATA.fingerprint, VAE, SPACE, "ndcg@10", "median", 0), **changes)


# What is searched.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model.pia=0.05..5:log", SearchRange(0.05, 5.0, log=True)),
        ("model.keep_prob=0.3..0.9", SearchRange(0.3, 0.9)),
        ("model.keep_prob=.3...9", SearchRange(0.3, 0.9)),
        ("model.latent_dim=10..50:log", SearchRange(10, 50, log=True)),
        ("model.latent_dim=64,128", SearchChoice((64, 128))),
        ("model.hidden_dims=[],[600],[600, 200]", SearchChoice(([], [600], [600, 200]))),
        ("training.sparse_updates=true,false", SearchChoice((True, False))),
        ("model.weighting=none, bm25", SearchChoice(("none", "bm25"))),
        ("model.beta", own_space(VAE)["model.beta"]),
    ],
)
def test_search_option_is_read_and_written_alike(
    text: str, expected: SearchRange | SearchChoice
) -> None:
    base = RunConfig.of({"model": {"name": "item-knn"}}) if "weighting" in text else VAE
    key = text.partition("=")[0]
    (found,) = read_space(base, [text]).values()
    assert found == expected
    assert read_space(base, [f"{key}={found}"]) == {key: found}


def test_without_search_the_models_own_space_less_what_is_fixed() -> None:
    own = own_space(VAE)
    assert {"model.pia", "model.keep_prob", "training.learning_rate"} <= own.keys()
    assert read_space(VAE, [], ["model.pia"]) == {
        key: tried for key, tried in own.items() if key != "model.pia"
    }
    assert own_space(EASE).keys() == {"model.l2", "model.popularity_exponent"}


@pytest.mark.parametrize("config", get_args(AnyModelConfig) or [])
def test_every_models_own_space_is_allowed_and_its_configuration_can_be_written(
    config: type,
) -> None:
    base = RunConfig.of({"model": {"name": config().name}})
    if own_space(base):
        check_space(base, own_space(base))
    assert RunConfig.of(tomllib.loads(as_toml(base))) == base


@pytest.mark.parametrize(
    ("base", "text", "complaint"),
    [
        (
            VAE,
            "model.pai=1..2",
            "model.pai: mult-vae has no such field to search; it has model.latent_dim, .*model.pia",
        ),
        (VAE, "pia=1..2", "no such field"),
        (VAE, "training.metric=ndcg@10,ndcg@20", "no such field to search"),
        (VAE, "model.name=ease,popularity", "no such field to search"),
        (EASE, "training.epochs=1..2", "ease has no such field to search; it has model.l2"),
        (
            VAE,
            "model.keep_prob=0.5..1.5",
            (
                "keep_prob=0.5..1.5: the field must take every value, 1.5 is refused.*less than or"
                " equal to 1"
            ),
        ),
        (VAE, "model.keep_prob=0..0.5", "0.0 is refused"),
        (VAE, "model.latent_dim=64,0", "0 is refused"),
        (VAE, "model.latent_dim=64,many", "many is refused"),
        (
            VAE,
            "model.latent_dim=1.5..8",
            "a range must lie between numbers that the field takes, found '1.5..8'",
        ),
        (VAE, "model.keep_prob=0.9..0.3", "a range must rise"),
        (VAE, "model.pia=0..5:log", "start above 0"),
        (VAE, "model.keep_prob=nan..1", "a range must rise"),
        (VAE, "model.beta=0..inf", "inf is refused"),
        (VAE, "model.latent_dim=64", "among two values at least"),
        (VAE, "model.hidden_dims=1..2", "only numbers have a range"),
        (VAE, "model.anneal_steps", "has no range of its own"),
        (VAE, "model.beta=0..1", "either fixed .* or searched"),
    ],
)
def test_space_that_cannot_be_is_refused_before_the_first_trial(
    base: RunConfig, text: str, complaint: str, tmp_path: Path
) -> None:
    fixed = ["model.beta"] if "fixed" in complaint else []
    with pytest.raises(ConfigError, match=complaint):
        tune(DATA, base, out=tmp_path / "study", search=read_space(base, [text], fixed))
    assert not (tmp_path / "study").exists()


def test_models_within_models_are_searched_too(tmp_path: Path) -> None:
    values = {
        "name": "linear-path-vae",
        "hidden_dims": [12],
        "latent_dim": 6,
        "path": {"name": "ease", "l2": 50},
    }
    base = RunConfig.of({"model": values, "training": {"epochs": 1}})
    assert {"model.path.l2", "model.keep_prob"} <= own_space(base).keys()
    result = tune(
        DATA,
        base,
        out=tmp_path,
        search=read_space(base, ["model.path.l2=10..1000:log"]),
        n_trials=2,
    )
    assert [trial.state for trial in result.trials] == ["complete"] * 2
    assert result.trials[0].values == {"model.path.l2": 50.0}
    assert "path.l2" in str(result)
    assert RunConfig.load(tmp_path / "best.toml") == result.config


def test_ends_may_need_one_another() -> None:
    base = RunConfig.of({"training": {"weight_decay": 0.1}})
    space = read_space(base, ["training.weight_decay=0..0.1", "training.sparse_updates=true,false"])
    check_space(base, space)
    with pytest.raises(ConfigError, match="weight_decay must be 0 with sparse_updates"):
        check_space(base, {"training.sparse_updates": space["training.sparse_updates"]})


def test_model_with_nothing_to_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="popularity has nothing left"):
        tune(DATA, RunConfig.of({"model": {"name": "popularity"}}), out=tmp_path / "study")


def test_numbers_that_make_no_study_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1, found 0 and 1"):
        tune(DATA, EASE, out=tmp_path, search=L2, n_trials=0)
    with pytest.raises(ConfigError, match="pruner must be median or none"):
        tune(DATA, EASE, out=tmp_path, search=L2, pruner="best")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="metric"):
        tune(DATA, EASE, out=tmp_path, search=L2, metric="mean")
    with pytest.raises(ConfigError, match="in memory only"):
        tune(DATA, EASE, out=tmp_path, search=L2, jobs=2)


# What comes out.


def test_closed_form_is_judged_by_evaluate_on_validation_users(tmp_path: Path) -> None:
    result = tune(DATA, EASE, out=tmp_path, search=L2, n_trials=3, metric="recall@5")
    assert [trial.state for trial in result.trials] == ["complete"] * 3
    for trial in result.trials:
        model = train(
            DATA, RunConfig.of({"model": {"name": "ease", "l2": trial.values["model.l2"]}})
        )
        assert trial.value == evaluate(
            model, DATA.cases(Part.VALIDATION), metrics=["recall@5"]
        ).mean("recall@5")
    assert result.trials[0].values == {"model.l2": 50.0}, "the search begins at the base"
    assert result.best is not None
    assert result.best.value == max(trial.value or 0 for trial in result.trials)


def test_network_is_judged_by_its_best_epoch_and_the_written_configuration_gives_it_again(
    tmp_path: Path,
) -> None:
    result = tune(
        DATA, VAE, out=tmp_path, search=SPACE, n_trials=4, pruner="none", command="coterie tune\nit"
    )
    assert result.best is not None
    text = (tmp_path / "best.toml").read_text()
    assert text.startswith("# Found by: coterie tune it\n# ndcg@10 of the validation users: ")
    assert DATA.fingerprint in text
    assert RunConfig.load(tmp_path / "best.toml") == result.config
    assert train(DATA, result.config).provenance["best_validation"] == result.best.value
    rows = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert [float(row["ndcg@10"]) for row in rows] == [trial.value for trial in result.trials]
    assert [json.loads(row["model.latent_dim"]) for row in rows] == [
        trial.values["model.latent_dim"] for trial in result.trials
    ]
    for trial in result.trials:
        folder = tmp_path / "trials" / str(trial.number)
        assert {path.name for path in folder.iterdir()} == {
            "config.json",
            "environment.json",
            "history.jsonl",
            "run.lock",
            "trial.lock",
        }
        assert max(entry["validation"]["ndcg@10"] for entry in read_history(folder)) == trial.value


def test_a_study_is_read_without_optuna_as_it_was_returned(tmp_path: Path) -> None:
    result = tune(DATA, VAE, out=tmp_path / "study", search=SPACE, n_trials=7)
    assert {trial.state for trial in result.trials} >= {"complete", "pruned"}
    assert read_study(tmp_path / "study") == result
    before = (tmp_path / "study" / "trials.csv").read_bytes()
    write_trials(tmp_path / "again.csv", read_study(tmp_path / "study"))
    assert (tmp_path / "again.csv").read_bytes() == before
    (tmp_path / "study" / "trials.csv").unlink()
    empty = read_study(tmp_path / "study")
    assert (empty.trials, empty.best, empty.config) == ((), None, None)


def test_trials_of_every_kind_come_back(tmp_path: Path) -> None:
    space: Space = {
        "model.hidden_dims": SearchChoice(([], [600, 200])),
        "model.pia": SearchRange(0, 1),
    }
    trials = (
        Trial(0, "complete", 0.1 + 0.2, 4, 1.5, {"model.hidden_dims": [], "model.pia": 1e-9}, None),
        Trial(1, "failed", None, 0, None, {"model.hidden_dims": [600, 200]}, 'no, "never"\nso'),
        Trial(2, "running", None, 0, None, {}, None),
    )
    write_trials(tmp_path / "t.csv", TuningResult(tmp_path, "ndcg@10", space, trials, None, None))
    assert read_trials(tmp_path / "t.csv", space, "ndcg@10") == trials


def test_what_is_no_study_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="must be a study folder"):
        read_study(tmp_path / "none")
    with pytest.raises(ArtifactError, match="must hold the terms of a study"):
        read_study(tmp_path)
    tune(DATA, EASE, out=tmp_path / "study", search=L2, n_trials=1)
    for text in ("number,state\n0,complete\n", "number,state,ndcg@10\nx,complete,y\n"):
        (tmp_path / "study" / "trials.csv").write_text(text)
        with pytest.raises(ArtifactError, match="must hold the trials of a study"):
            read_study(tmp_path / "study")


def test_models_of_finished_trials_stay_if_asked_for(tmp_path: Path) -> None:
    tune(DATA, VAE, out=tmp_path, search=SPACE, n_trials=1, keep=True)
    assert (tmp_path / "trials" / "0" / "model" / "weights.safetensors").exists()


class Sealed(Dataset):
    """A data set whose test cases nobody may ask for."""

    def cases(self, part: Part) -> Cases:
        assert part is not Part.TEST
        return super().cases(part)


@pytest.mark.parametrize(
    ("base", "space"), [(VAE, SPACE), (EASE, L2)], ids=["network", "closed form"]
)
def test_test_users_take_no_part(base: RunConfig, space: Space, tmp_path: Path) -> None:
    # Other histories for every test user: the study must not notice.
    indices, rng = DATA.interactions.indices.copy(), np.random.default_rng(0)
    bounds = DATA.interactions.indptr
    for user in np.flatnonzero(DATA.split.user_part == Part.TEST):
        row = slice(bounds[user], bounds[user + 1])
        indices[row] = np.sort(
            rng.choice(DATA.n_items, bounds[user + 1] - bounds[user], replace=False)
        )
    other = Sealed(replace(DATA.interactions, indices=indices), DATA.split, DATA.titles)
    assert other.fingerprint != DATA.fingerprint
    found = [
        told(tune(data, base, out=tmp_path / name, search=space, n_trials=3))
        for name, data in (("a", DATA), ("b", other))
    ]
    assert found[0] == found[1]


def test_data_without_validation_users_is_refused(tmp_path: Path) -> None:
    part = DATA.split.interaction_part.copy()
    part[part == Part.VALIDATION] = Part.TRAIN
    data = Dataset(DATA.interactions, Split(DATA.split.user_part, part), DATA.titles)
    with pytest.raises(ConfigError, match="validation users, the data set has none"):
        tune(data, EASE, out=tmp_path, search=L2)


def test_poor_trials_end_early_but_count(tmp_path: Path) -> None:
    space: Space = {"training.learning_rate": SearchRange(1e-5, 0.02, log=True)}
    pruned, whole = (
        tune(DATA, VAE, out=tmp_path / name, search=space, n_trials=9, pruner=name)
        for name in ("median", "none")
    )
    states = [trial.state for trial in pruned.trials]
    assert states[:5] == ["complete"] * 5, "there must be something to compare with"
    assert "pruned" in states
    assert all(
        trial.epochs < 4 and trial.value is not None
        for trial in pruned.trials
        if trial.state == "pruned"
    )
    assert pruned.best is not None
    assert pruned.best.state == "complete"
    assert [trial.state for trial in whole.trials] == ["complete"] * 9
    assert {trial.epochs for trial in whole.trials} == {4}


def test_configuration_that_cannot_work_is_a_failed_trial(tmp_path: Path) -> None:
    bad = RunConfig.of(
        {**VAE.as_json(), "training": {**VAE.training.model_dump(), "learning_rate": 1e30}}
    )
    result = tune(
        DATA,
        bad,
        out=tmp_path / "nan",
        search={"training.learning_rate": SearchChoice((1e30, 1e31))},
        n_trials=2,
    )
    assert [trial.state for trial in result.trials] == ["failed"] * 2
    assert "the loss must stay finite" in (result.trials[0].error or "")
    assert result.best is None
    assert not (tmp_path / "nan" / "best.toml").exists()
    assert str(result) == "2 trials: 2 failed"
    space: Space = {
        "training.sparse_updates": SearchChoice((False, True)),
        "training.weight_decay": SearchChoice((0.0, 0.001)),
    }
    mixed = tune(DATA, VAE, out=tmp_path / "mixed", search=space, n_trials=8)
    failed = [trial for trial in mixed.trials if trial.state == "failed"]
    assert failed
    assert all(
        "weight_decay must be 0 with sparse_updates" in (trial.error or "") for trial in failed
    )


def test_table_fits_a_terminal() -> None:
    space = {**own_space(VAE), "model.hidden_dims": SearchChoice(((600,), (600, 200)))}
    values = dict.fromkeys(space, 0.00012346) | {"model.hidden_dims": [600, 200]}
    trials = tuple(Trial(n, "complete", 0.4, 150, 12345.6, values, None) for n in range(100, 120))
    table = str(TuningResult(Path("study"), "ndcg@100", space, trials, trials[0], VAE))
    assert max(map(len, table.splitlines())) <= 80
    assert "learning_rate" in table
    assert "0.0001235" in table
    assert table.endswith("20 trials: 20 complete")


# Stopped, killed, shared, gone on with.


def test_same_seed_same_study_however_the_space_is_ordered(tmp_path: Path) -> None:
    again = dict(reversed(list(SPACE.items())))
    first, second, third = (
        tune(DATA, VAE, out=tmp_path / name, search=search, n_trials=12, seed=seed)
        for name, search, seed in (("a", SPACE, 1), ("b", again, 1), ("c", SPACE, 2))
    )
    assert told(first) == told(second)
    assert told(first)[1:] != told(third)[1:]


def test_study_stopped_between_trials_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = tune(DATA, VAE, out=tmp_path / "whole", search=SPACE, n_trials=12)
    seen = []

    def stop(update: Update) -> None:
        seen.append(update.done)
        if update.done in (4, 11) and seen.count(update.done) == 1:
            signal.raise_signal(signal.SIGTERM)

    for _ in range(2):
        with pytest.raises(
            Interrupted, match=r"stopped after .* finished trials; the same command goes on"
        ) as caught:
            tune(DATA, VAE, out=tmp_path / "parts", search=SPACE, n_trials=12, progress=stop)
        assert caught.value.exit_code == 143
        assert (tmp_path / "parts" / "best.toml").exists()
    assert told(tune(DATA, VAE, out=tmp_path / "parts", search=SPACE, n_trials=12)) == told(whole)
    assert seen == [*range(5), *range(4, 12)]
    more = tune(DATA, VAE, out=tmp_path / "parts", search=SPACE, n_trials=13)
    assert told(more)[:12] == told(whole)
    assert len(more.trials) == 13


def test_trial_of_a_dead_process_goes_on_under_its_number_and_one_of_a_living_is_left_alone(
    tmp_path: Path,
) -> None:
    whole = tune(DATA, VAE, out=tmp_path / "whole", search=SPACE, n_trials=3)
    study = StudyFolder(tmp_path / "parts", terms())
    dead, alive = study.claim(3), study.claim(3)
    assert dead is not None
    assert alive is not None
    assert [dead.number, alive.number] == [0, 1]

    def die(update: Update) -> None:
        if update.facts:
            dead.report(update.facts["epoch"], update.facts["validation"]["ndcg@10"])
        if update.facts.get("epoch") == 2:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        train(DATA, VAE, out=dead.folder, resume=True, progress=die, checkpoint_seconds=0)
    begun = read_history(dead.folder)
    dead.lock.release()
    parts = tune(DATA, VAE, out=tmp_path / "parts", search=SPACE, n_trials=3)
    assert [trial.state for trial in parts.trials] == ["complete", "running", "complete"]
    assert told(parts)[0] == told(whole)[0]
    assert read_history(dead.folder)[:1] == begun[:1], "from the checkpoint, not from the start"
    alive.lock.release()
    ended = tune(DATA, VAE, out=tmp_path / "parts", search=SPACE, n_trials=3)
    assert told(ended)[:2] == told(whole)[:2]
    assert ended.summary() == "3 trials: 3 complete"


def test_trial_killed_while_it_was_being_pruned_is_pruned(tmp_path: Path) -> None:
    tune(DATA, VAE, out=tmp_path, search=SPACE, n_trials=5)
    claim = StudyFolder(tmp_path, terms()).claim(6)
    assert claim is not None
    with pytest.raises(Pruned):
        claim.report(1, 0.0)
    (claim.folder / "history.jsonl").write_text('{"seconds": 1.5}\n')
    claim.lock.release()
    last = tune(DATA, VAE, out=tmp_path, search=SPACE, n_trials=6).trials[5]
    assert (last.state, last.value, last.epochs, last.seconds) == ("pruned", 0.0, 1, 1.5)


def test_study_on_other_terms_is_refused_with_the_difference(tmp_path: Path) -> None:
    tune(DATA, EASE, out=tmp_path, search=L2, n_trials=1)
    other = simulate_dataset(n_users=260, n_items=50, held_out_users=40, seed=3)
    narrow: Space = {"model.l2": SearchRange(1, 10)}
    cases: list[tuple[Dataset, RunConfig, dict[str, Any], str]] = [
        (
            other,
            EASE,
            {"search": L2},
            f"dataset was '{DATA.fingerprint}', now '{other.fingerprint}'",
        ),
        (DATA, EASE, {"search": narrow}, r"search.model.l2 was '1..1000:log', now '1..10'"),
        (DATA, EASE, {"search": L2, "seed": 1}, "seed was 0, now 1"),
        (DATA, VAE, {}, "config.model.name was 'ease', now 'mult-vae'"),
    ]
    for data, base, options, complaint in cases:
        with pytest.raises(ConfigError, match=complaint):
            tune(data, base, out=tmp_path, **options)


def test_folder_that_is_no_study_is_refused_and_a_damaged_one_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"must be a study \(with study.json\), empty or new"):
        tune(DATA, EASE, out=tmp_path, search=L2)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    study = tmp_path / "study"
    tune(DATA, EASE, out=study, search=L2, n_trials=1)
    text = (study / "study.json").read_text()
    for damaged, complaint in (
        (text[:-20], "must hold the terms"),
        (text.replace("study/1", "study/9"), "schema must be"),
    ):
        (study / "study.json").write_text(damaged)
        with pytest.raises(ArtifactError, match=complaint):
            tune(DATA, EASE, out=study, search=L2)
    (study / "study.json").write_text(text)
    lines = (study / "journal.jsonl").read_text().splitlines()
    (study / "journal.jsonl").write_text("\n".join([lines[0], "{", *lines[1:]]) + "\n")
    with pytest.raises(ArtifactError, match="must be the log of a study"):
        tune(DATA, EASE, out=study, search=L2)


def test_half_a_line_at_the_end_of_the_journal_is_cut_off(tmp_path: Path) -> None:
    whole = tune(DATA, EASE, out=tmp_path / "whole", search=L2, n_trials=3)
    tune(DATA, EASE, out=tmp_path / "torn", search=L2, n_trials=2)
    with (tmp_path / "torn" / "journal.jsonl").open("a") as journal:
        journal.write('{"op_code":4,"worker')
    assert told(tune(DATA, EASE, out=tmp_path / "torn", search=L2, n_trials=3)) == told(whole)
    assert all(
        json.loads(line) for line in (tmp_path / "torn" / "journal.jsonl").read_text().splitlines()
    )


def test_lock_is_held_once_and_ends_with_its_process(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    journal.touch()
    path = tmp_path / "journal.jsonl.lock"
    code = (
        "import sys; from pathlib import Path; from coterie.tuning.lock import JournalLock\n"
        "lock = JournalLock(Path(sys.argv[1]))\n"
        "lock.acquire(); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, journal],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        assert try_lock(path) is None
        child.kill()
        child.wait()
        mine = try_lock(path)
    assert mine is not None
    mine.release()
    again = JournalLock(journal)
    assert again.acquire()
    assert try_lock(path) is None
    again.release()


# The command.


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuning") / "data"
    DATA.save(folder)
    return folder


def command(data: Path, out: Path, *options: str) -> list[str]:
    model = [
        "--set",
        "model.hidden_dims=[12]",
        "--set",
        "model.anneal_steps=9",
        "--set",
        "training.epochs=8",
    ]
    rest = [
        "--search",
        "model.keep_prob=0.3..0.9",
        "--search",
        "model.latent_dim=2..12",
        "--search",
        "training.batch_size=30,60",
    ]
    return [
        sys.executable,
        "-m",
        "coterie.cli",
        "tune",
        str(data),
        "--out",
        str(out),
        *model,
        *rest,
        "--trials",
        "5",
        *options,
    ]


def wait_until(happened: Callable[[], bool]) -> None:
    # Long: two processes in a row import torch, which takes half a minute where files are cold.
    deadline = time.monotonic() + 180
    while not happened():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def wait_for(happened: Callable[[], bool], child: subprocess.Popen[bytes]) -> None:
    def told() -> bool:
        done = happened()
        assert done or child.poll() is None, "the command ended too early"
        return done

    wait_until(told)


def finished(out: Path) -> dict[str, str]:
    """The line of every finished trial in trials.csv, by number."""
    path = out / "trials.csv"
    lines = path.read_text().splitlines()[1:] if path.exists() else []
    return {line.split(",")[0]: line for line in lines if line.split(",")[1] != "running"}


def test_killed_and_resumed_loses_no_finished_trial(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    child = subprocess.Popen(command(data, out), stdout=subprocess.DEVNULL)
    wait_for(
        lambda: len(finished(out)) >= 2 and (out / "trials" / "2" / "history.jsonl").exists(), child
    )
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    before = finished(out)
    done = subprocess.run(
        command(data, out, "--json", str(tmp_path / "study.json")),
        check=True,
        capture_output=True,
        text=True,
    )
    assert "best.toml" in done.stdout
    after = finished(out)
    assert list(after) == list("01234")
    assert before.items() <= after.items(), (
        "every trial that was finished is there, once, as it was"
    )
    assert len((out / "trials.csv").read_text().splitlines()) == 6
    # And the study is the one that nothing happened to.
    asked = Terms.load(out)
    whole = tune(DATA, asked.base, out=tmp_path / "whole", search=asked.space, n_trials=5)
    told_by_command = json.loads((tmp_path / "study.json").read_text())["trials"]
    assert [{**trial, "seconds": None} for trial in told_by_command] == told(whole)


def free(out: Path) -> bool:
    """Whether nobody works on a trial.

    Asked under the lock of the folder, as trials are taken up: a trial that was tried here at that
    moment would be refused to the process that begins it.
    """
    with file_lock(out / "study.lock"):
        locks = [try_lock(path) for path in (out / "trials").glob("*/trial.lock")]
        for lock in locks:
            if lock is not None:
                lock.release()
    return None not in locks


def test_several_jobs_share_a_study_and_stop_with_their_parent(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    with subprocess.Popen(command(data, out, "--jobs", "2"), stdout=subprocess.DEVNULL) as child:
        wait_for(lambda: len(finished(out)) > 0 and not free(out), child)
        child.kill()
    deadline = time.monotonic() + 30
    while not free(out):
        assert time.monotonic() < deadline, "a process outlived its parent"
        time.sleep(0.02)
    before, asked = finished(out), Terms.load(out)
    asked_to_stop: list[float] = []

    def stop(update: Update) -> None:
        if update.done > len(before) and not asked_to_stop:
            asked_to_stop.append(update.done)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="the same command goes on") as caught:
        tune(
            Dataset.load(data),
            asked.base,
            out=out,
            search=asked.space,
            n_trials=8,
            jobs=2,
            progress=stop,
        )
    assert caught.value.exit_code == 130
    assert free(out)
    before |= finished(out)
    result = tune(DATA, asked.base, out=out, search=asked.space, n_trials=8)
    assert [trial.number for trial in result.trials] == list(range(8))
    assert {trial.state for trial in result.trials} <= {"complete", "pruned"}
    assert before.items() <= finished(out).items()


def test_trials_of_several_jobs_that_end_unseen_are_reported(data: Path, tmp_path: Path) -> None:
    told: list[float] = []

    def slow(update: Update) -> None:
        told.append(update.done)
        wait_until(lambda: len(finished(tmp_path / "study")) == 3 and free(tmp_path / "study"))
        time.sleep(3)  # until the processes are gone, too

    tune(
        Dataset.load(data),
        EASE,
        out=tmp_path / "study",
        search=L2,
        n_trials=3,
        jobs=2,
        progress=slow,
    )
    assert told == [0, 3]


def test_command_tunes_and_its_configuration_trains(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str | Path) -> None:
        monkeypatch.setattr(sys, "argv", ["coterie", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 0

    study = tmp_path / "study"
    run(
        "tune",
        data,
        "--model",
        "ease",
        "--search",
        "model.l2",
        "--trials",
        "3",
        "--metric",
        "ndcg@10",
        "--out",
        study,
    )
    printed = capsys.readouterr().out
    assert "ndcg@10" in printed
    assert "3 trials: 3 complete" in printed
    text = (study / "best.toml").read_text()
    assert f"coterie tune {data} --model ease --search model.l2 --trials 3" in text
    run("train", data, "--config", study / "best.toml", "--out", tmp_path / "run")
    assert (tmp_path / "run" / "model").exists()
