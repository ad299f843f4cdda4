"""Seconds of training until a model ranks as well as a rival's at its best: Coterie beside other
implementations of Mult-VAE.

    python benchmarks/time_to_quality.py --data data/ml-1m --json quality.json --plot quality.png
    python benchmarks/time_to_quality.py --data ml-1m-shape --limit 120 --only dense

The data set is a prepared one, or simulated at the shape of a known one. All train on the same
histories and are validated after each epoch on the same users by the same NDCG@100. Each runs in a
process and, where versions clash, an environment of its own (see rivals.py). Whoever has trained
the fewest seconds takes the next epoch, so that the machine's drift touches all alike. Seconds are
those since the model began to be built (a start that is computed counts, too), without reading
data, validation and JAX's compiling. A run ends after --patience validations without a better value
or --limit seconds.

The target is 99 % of a rival's best value; the ratio is the rival's seconds to it over Coterie's.
"irspack" and "recbole" train at their library's own settings, "… 600-200" and "dense" at Liang et
al.'s. Linux only.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from rival_processes import FailedError, Worker, use_threads
from scipy.sparse import csr_matrix, save_npz

from coterie.cli.options import laid_over, setting_of
from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.split import Part
from coterie.files import publish_file, write_json
from coterie.lab.bench.turns import machine
from coterie.plain_table import plain_table
from coterie.simulation.service import simulate_dataset

METRIC = "ndcg@100"  # As in rivals/quality.py.
SHARE = 0.99
"""Of a rival's best value: what is to be reached."""

OURS = "coterie"

SHAPES = {
    name: dict(zip(("n_users", "n_items", "mean_items", "held_out_users"), sizes, strict=True))
    for name, sizes in {
        "ml-1m-shape": (6_034, 3_499, 95, 600),
        "gowalla-shape": (29_858, 40_981, 34, 3_000),
        "ml-20m-shape": (136_677, 20_108, 73, 10_000),
    }.items()
}


@dataclass(frozen=True)
class Contestant:
    """Who trains.

    Args:
        script: In benchmarks/rivals.
        colour: Of Okabe and Ito's palette, as in growth.py.
        requirements: Its environment, as in `rival_processes.interpreter`.
        arguments: Of the script, beside the folder.
    """

    script: str
    colour: str
    requirements: str | None = None
    arguments: tuple[str, ...] = ()


PAPER = ("--paper",)
CONTESTANTS = {
    OURS: Contestant("quality_coterie.py", "#0072B2"),
    "irspack": Contestant("quality_irspack.py", "#D55E00", "irspack.txt"),
    "irspack 600-200": Contestant("quality_irspack.py", "#E69F00", "irspack.txt", PAPER),
    "recbole": Contestant("quality_recbole.py", "#009E73", "recbole.txt"),
    "recbole 600-200": Contestant("quality_recbole.py", "#56B4E9", "recbole.txt", PAPER),
    "dense": Contestant("quality_dense.py", "#CC79A7"),
}
RIVALS = [name for name in CONTESTANTS if name != OURS]


@dataclass
class Run:
    """One training.

    Args:
        curve: Seconds and validation value at the end of each epoch.
        packages: Versions.
        stopped: By what: patience, the limit, or its own end.
        failed: Why there is no curve.
    """

    curve: list[tuple[float, float]] = field(default_factory=list)
    packages: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None
    failed: str | None = None

    @property
    def seconds(self) -> float:
        """Trained so far."""
        return self.curve[-1][0] if self.curve else 0.0

    @property
    def best(self) -> float:
        """The highest value."""
        return max(value for _, value in self.curve)

    def reached(self, target: float) -> float | None:
        """Seconds until the end of the first epoch that reached ``target``; None if none did."""
        return next((seconds for seconds, value in self.curve if value >= target), None)

    def epoch_seconds(self) -> list[float]:
        """Of each epoch; the first holds what comes before it, too."""
        ends = [0.0, *(seconds for seconds, _ in self.curve)]
        return [end - start for start, end in pairwise(ends)]

    def end(self, patience: int, limit: float) -> str | None:
        """Why it ends here, if it does."""
        values = [value for _, value in self.curve]
        if len(values) - 1 - values.index(max(values)) >= patience:
            return "patience"
        return "limit" if self.seconds >= limit else None

    def to_json(self) -> dict[str, Any]:
        """What the JSON file holds of it."""
        if self.failed:
            return {"failed": self.failed}
        epochs = self.epoch_seconds()
        return {
            "best": self.best,
            "stopped": self.stopped,
            "first_epoch_seconds": epochs[0],
            "epoch_seconds": statistics.median(epochs[1:] or epochs),
            "curve": self.curve,
            "packages": self.packages,
        }


def hand_over(data: Dataset, config: RunConfig, folder: Path) -> None:
    """Writes what the processes read."""
    cases = data.cases(Part.VALIDATION)
    if not len(cases.user_index) or not cases.exclude_seen:
        raise SystemExit(
            "--data must have validation users whose lists leave out what they have; prepare it"
            " with --held-out-users."
        )
    data.save(folder / "dataset")
    write_json(folder / "config.json", config.as_json())
    matrices = {"histories": data.train, "fold_in": cases.fold_in, "held_out": cases.held_out}
    for name, matrix in matrices.items():
        save_npz(folder / f"{name}.npz", csr_matrix(matrix))


def race(names: Sequence[str], folder: Path, patience: int, limit: float) -> dict[str, Run]:
    """Trains all of them, an epoch at a time."""
    runs: dict[str, Run] = {name: Run() for name in names}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name, run in runs.items():
            contestant = CONTESTANTS[name]
            arguments = [str(folder), *contestant.arguments]
            try:
                worker = Worker(name, contestant.script, contestant.requirements, folder, arguments)
                workers[name] = stack.enter_context(worker)
                run.packages = worker.answer()["packages"]
            except FailedError as error:
                _fail(name, run, error, workers)
        while workers:
            name = min(workers, key=lambda name: runs[name].seconds)
            try:
                _advance(runs[name], workers[name], patience, limit)
            except FailedError as error:
                _fail(name, runs[name], error, workers)
            else:
                print(_in_words(name, runs[name]), file=sys.stderr, flush=True)
                if runs[name].stopped:
                    # Gone at once: what it holds would stand in the others' way.
                    workers.pop(name).__exit__(None, None, None)
    return runs


def _fail(name: str, run: Run, error: FailedError, workers: dict[str, Worker]) -> None:
    run.failed = str(error)
    workers.pop(name, None)
    print(f"{name}: {error}", file=sys.stderr, flush=True)


def _advance(run: Run, worker: Worker, patience: int, limit: float) -> None:
    """An epoch more."""
    answer = worker.ask()
    if "finished" in answer:
        run.stopped = "its own end"
        return
    run.curve.append((answer["seconds"], answer[METRIC]))
    run.stopped = run.end(patience, limit)


def _in_words(name: str, run: Run) -> str:
    ended = f", stopped by {run.stopped}" if run.stopped else ""
    seconds, value = run.curve[-1]
    return f"{name}: epoch {len(run.curve)}, {seconds:.1f} s, {METRIC} {value:.4f}{ended}"


def outcome(runs: Mapping[str, Run]) -> dict[str, Any]:
    """Every run, and each rival beside Coterie; ``times_as_fast`` is the least ratio, None where
    Coterie did not reach a target.
    """
    ours = runs[OURS]
    rivals: dict[str, Any] = {}
    for name, run in runs.items():
        if name == OURS:
            continue
        rivals[name] = run.to_json()
        if run.failed or ours.failed:
            continue
        target = SHARE * run.best
        seconds, of_ours = run.reached(target), ours.reached(target)
        assert seconds is not None, "a run reaches its own best"
        rivals[name] |= {
            "target": target,
            "seconds": seconds,
            "coterie_seconds": of_ours,
            "ratio": None if of_ours is None else seconds / of_ours,
        }
    ratios = [one["ratio"] for one in rivals.values() if "ratio" in one]
    fastest = None if not ratios or None in ratios else min(ratios)
    return {OURS: ours.to_json(), "rivals": rivals, "times_as_fast": fastest}


def table(result: Mapping[str, Any]) -> str:
    """A line a run."""
    header = ["", "best", "stopped by", "1st epoch", "epoch", "target", "reached", "Coterie"]
    rows = [_row(name, one) for name, one in {OURS: result[OURS], **result["rivals"]}.items()]
    right = [False, True, False, *[True] * 6]
    return plain_table([*header, "times as fast"], rows, right)


def _row(name: str, one: Mapping[str, Any]) -> list[str]:
    if "failed" in one:
        return [name, "-", one["failed"], *["-"] * 6]
    epochs = [f"{one[key]:.2f} s" for key in ("first_epoch_seconds", "epoch_seconds")]
    row = [name, f"{one['best']:.4f}", one["stopped"], *epochs]
    if "target" not in one:
        return [*row, *["-"] * 4]
    row += [f"{one['target']:.4f}", f"{one['seconds']:.1f} s"]
    if one["ratio"] is None:
        return [*row, "never", "-"]
    return [*row, f"{one['coterie_seconds']:.1f} s", f"{one['ratio']:.2f}"]


def draw(path: Path, result: Mapping[str, Any], title: str) -> None:
    """NDCG against seconds, a line a run; a rival's target is marked where it and where Coterie
    reach it.
    """
    with mpl.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9, 6), layout="constrained", dpi=140)
        axes = figure.subplots()
        _draw_run(axes, OURS, result[OURS])
        for name, one in result["rivals"].items():
            _draw_run(axes, name, one)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.set_xlabel("seconds of training")
        axes.set_ylabel("NDCG@100 of the validation users")
        told = "× the seconds to 99 % of its best (dots), over Coterie's"
        axes.set_title(f"{title}\n{told}", loc="left", fontsize=11)
        figure.legend(frameon=False, loc="outside lower center", ncols=3)
        with publish_file(path) as aside:
            figure.savefig(aside)


def _draw_run(axes: Axes, name: str, one: Mapping[str, Any]) -> None:
    if "failed" in one:
        return
    colour, label = CONTESTANTS[name].colour, name
    if one.get("ratio") is not None:
        label += f": {one['ratio']:.1f} ×"
    seconds, values = zip(*one["curve"], strict=True)
    axes.plot(seconds, values, color=colour, label=label, linewidth=2.6 if name == OURS else 1.5)
    if "target" in one:
        ends = [end for end in (one["coterie_seconds"], one["seconds"]) if end is not None]
        axes.plot(
            ends,
            [one["target"]] * len(ends),
            color=colour,
            linestyle="dotted",
            marker="o",
            markersize=5,
        )


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", required=True, help=f"a folder of `coterie prepare`, or {', '.join(SHAPES)}"
    )
    parser.add_argument("--model", default="mult-vae", help="Coterie's")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.FIELD=VALUE",
        help="of Coterie's configuration; the metric is always " + METRIC,
    )
    parser.add_argument(
        "--only", nargs="*", choices=RIVALS, default=RIVALS, help="rivals; all by default"
    )
    parser.add_argument("--patience", type=int, default=10, help="validations without a better one")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds of training of each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="PNG")
    return parser.parse_args()


def configuration(options: argparse.Namespace) -> RunConfig:
    """Coterie's."""
    settings = {"model.name": options.model, **dict(map(setting_of, options.set))}
    config = RunConfig.of(laid_over(None, settings))
    if config.network_free():
        raise SystemExit(f"--model must be trained in epochs, found {options.model}.")
    return RunConfig.of(laid_over(None, {**settings, "training.metric": METRIC}))


def main() -> None:
    options = read_options()
    use_threads(options.threads)
    torch.set_num_threads(options.threads)
    config = configuration(options)
    shape = SHAPES.get(options.data)
    data = simulate_dataset(**shape, seed=1) if shape else Dataset.load(options.data)
    facts = {
        "data": options.data,
        "fingerprint": data.fingerprint,
        "users": data.train.shape[0],
        "items": data.n_items,
        "interactions": int(data.train.nnz),
        "validation_users": len(data.cases(Part.VALIDATION).user_index),
        "metric": METRIC,
        "share": SHARE,
        "patience": options.patience,
        "limit_seconds": options.limit,
        "config": config.as_json(),
        **machine("cpu"),
    }
    with tempfile.TemporaryDirectory() as folder:
        hand_over(data, config, Path(folder))
        runs = race([OURS, *options.only], Path(folder), options.patience, options.limit)
    result = {**facts, **outcome(runs)}
    print(table(result))
    fastest = result["times_as_fast"]
    told = "not known, as a target was not reached" if fastest is None else f"{fastest:.2f}"
    print(f"\ntimes as fast as the fastest rival: {told}")
    if options.json is not None:
        write_json(options.json, result)
    if options.plot is not None:
        name = Path(options.data).name
        title = f"{name}: {facts['users']:,} users, {facts['items']:,} items, {facts['machine']}"
        draw(options.plot, result, title)


if __name__ == "__main__":
    main()
