"""What training users' steps teach others along training, at equal epochs and at equal loss.

    python benchmarks/transfer_along_training.py --data data/ml-1m --out snapshots
    --setting masked=masked.toml --setting pia=pia.toml [--json along.json] [--plot along.png]

Each setting is trained with snapshots at epochs 1, 2, 4, 8, … and the best one; what is there
already is taken as it is. Asked are the data set's validation users, by the loss of their hidden
items. Steps are down training users' whole objective over all parameters, as plain gradients and as
Adam scales them, by the moments of that very epoch. Intervals are 95 % bootstraps over both sides;
one training a setting, so that they do not hold the luck of its seed.

With --one-unit all models are brought to the unit of the latent space in which posteriors are as
wide as the first setting's best: inner products over all parameters depend on that unit, nothing
that a model says does.
"""

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.split import Part
from coterie.files import publish_file, write_json
from coterie.lab.collaboration.along_training import (
    Moment,
    means_at,
    moments,
    noise_of,
    reached_by_all,
    trained_at,
)
from coterie.lab.collaboration.pairs import GLOBAL, PairKind
from coterie.lab.collaboration.resampling import with_interval
from coterie.lab.collaboration.snapshots import Snapshot, train_with_snapshots
from coterie.lab.collaboration.teaching import Measure, People, Stepped
from coterie.plain_table import plain_table
from coterie.running.execution import Execution

GROUPS: dict[str, tuple[PairKind, ...]] = {
    "near": (PairKind.LOCAL,),
    "far, related": GLOBAL,
    "far, unrelated": (PairKind.UNRELATED,),
    "all": tuple(PairKind),
}
STEPS: tuple[Stepped, ...] = ("gradient", "adam")


def snapshots(
    dataset: Dataset, config: Path, folder: Path, seed: int, epochs: int | None
) -> list[Path]:
    """Those that are there, or of a new training."""
    if not (folder / "best.safetensors").exists():
        fields = tomllib.loads(config.read_text(encoding="utf-8"))
        fields.setdefault("training", {})["seed"] = seed
        if epochs is not None:
            fields["training"]["epochs"] = epochs
        train_with_snapshots(dataset, RunConfig.of(fields), folder, device=Execution("auto"))
    return sorted(folder.glob("*.safetensors"))


def people_of(dataset: Dataset, args: argparse.Namespace) -> People:
    """Validation users, and training users with a history."""
    rng, cases = np.random.default_rng(args.seed), dataset.cases(Part.VALIDATION)
    asked = np.sort(rng.permutation(len(cases.user_index))[: args.asked])
    known = rng.permutation(np.flatnonzero(np.diff(dataset.train.indptr)))[: args.users]
    return People.of(
        cases.take(asked), dataset.train[np.sort(known)], n_by_adam=args.by_adam, seed=args.seed
    )


def of_moment(one: Moment) -> dict[str, Any]:
    """As JSON."""
    told: dict[str, Any] = {
        "epoch": one.epoch,
        "best": one.best,
        "quality": one.quality,
        "hidden_nats": one.hidden_nats,
        "encoder_share": one.teaching.encoder_share,
    }
    for step in STEPS:
        found = one.teaching.by_kind[Measure("hidden", step, "all")]
        told[step] = {name: found.mean_of(*kinds) for name, kinds in GROUPS.items()}
    return told


def at_equal_loss(found: dict[str, tuple[Moment, ...]]) -> dict[str, Any]:
    """Net means, and differences from the first setting, where all have reached one loss; empty
    where one was below it after its first snapshot.
    """
    level, first = reached_by_all(list(found.values())), next(iter(found))
    if any(one[0].hidden_nats < level for one in found.values()):
        return {}
    told: dict[str, Any] = {"hidden_nats": level}
    for step in STEPS:
        measure = Measure("hidden", step, "all")
        for group, kinds in GROUPS.items():
            means = {name: means_at(one, level, measure, *kinds) for name, one in found.items()}
            told[f"{step}, {group}"] = {
                name: {
                    "mean": with_interval(one),
                    "over the first": with_interval(one - means[first]),
                }
                for name, one in means.items()
            }
    return told


def at_best(found: dict[str, tuple[Moment, ...]]) -> dict[str, Any]:
    """Differences from the first setting at the best epochs: net means, and shares of help."""
    best = {name: [one for one in some if one.best][-1].teaching for name, some in found.items()}
    first, told = next(iter(best.values())), dict[str, Any]()
    for measure in first.by_kind:
        for group, kinds in GROUPS.items():
            told[f"{measure}, {group}"] = {
                name: {
                    "mean": one.by_kind[measure].mean_of(*kinds),
                    "over the first": one.by_kind[measure].mean_gain_over(
                        first.by_kind[measure], *kinds
                    ),
                    "share of help": one.by_kind[measure].share_of(*kinds),
                    "share over the first": one.by_kind[measure].gain_over(
                        first.by_kind[measure], *kinds
                    ),
                }
                for name, one in best.items()
            }
    return told


def words(values: tuple[float, float, float]) -> str:
    mean, low, high = (1e3 * one for one in values)
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def tables(told: dict[str, Any]) -> str:
    """For a terminal, times a thousand."""
    rows = [
        [
            name,
            f"{one['epoch']}{' (best)' if one['best'] else ''}",
            "" if one["quality"] is None else f"{one['quality']:.4f}",
            f"{one['hidden_nats']:.2f}",
            *(words(one["gradient"][group]) for group in ("near", "far, related", "all")),
            words(one["adam"]["far, related"]),
        ]
        for name, moments in told["settings"].items()
        for one in moments
    ]
    header = ["setting", "epoch", "quality", "hidden, nats", "near", "far, related", "all"]
    along = plain_table([*header, "far, related, Adam"], rows, [False] + [True] * 7)
    along = f"net mean cosines × 10³\n{along}"
    if not told["at equal loss"]:
        return along
    level = told["at equal loss"]["hidden_nats"]
    return f"{along}\n\nwhere all reach {level:.2f} nats\n{differences(told['at equal loss'])}"


def differences(told: dict[str, Any]) -> str:
    """From the first setting, for a terminal."""
    rows = [
        [measure, name, words(one["mean"]), words(one["over the first"])]
        for measure, of_settings in told.items()
        if isinstance(of_settings, dict)
        for name, one in of_settings.items()
    ]
    return plain_table(["measure", "setting", "net cosine", "over the first"], rows)


def draw(told: dict[str, Any]) -> Figure:
    """Net means of near and of far but related pairs, by epoch and by loss."""
    figure = Figure(figsize=(11, 7), layout="constrained", dpi=144)
    panels = figure.subplots(2, 2, sharey="row")
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
    for line, group in zip(panels, ("near", "far, related"), strict=True):
        for axes, x in zip(line, ("epoch", "hidden_nats"), strict=True):
            for place, (name, line_of) in enumerate(told["settings"].items()):
                at = [one[x] for one in line_of]
                mean, low, high = 1e3 * np.array([one["gradient"][group] for one in line_of]).T
                colour, marker = colours[place % 5], "osD^v"[place % 5]
                axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
                axes.plot(at, mean, color=colour, marker=marker, label=name)
            axes.axhline(0, color="black", linewidth=0.8)
            axes.grid(alpha=0.3)
            axes.set_yscale("symlog", linthresh=1)
            axes.set_ylabel(f"{group} pairs:\nnet mean cosine × 10³")
        line[0].set_xscale("log", base=2)
        line[0].set_xlabel("epoch")
        line[1].invert_xaxis()
        line[1].set_xlabel("loss of hidden items, nats (training goes to the right)")
    panels[0][0].legend(frameon=False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a prepared data set")
    parser.add_argument("--setting", action="append", required=True, help="NAME=CONFIG.toml")
    parser.add_argument("--out", type=Path, required=True, help="of the snapshots")
    parser.add_argument("--users", type=int, default=1000, help="training users stepped on")
    parser.add_argument("--asked", type=int, default=1000, help="validation users, at most")
    parser.add_argument("--by-adam", type=int, default=50, help="of users, stepped on by Adam")
    parser.add_argument("--draws", type=int, default=4, help="masks and points of each")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=None, help="in place of the configuration's")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one-unit", action="store_true", help="of the latent spaces")
    parser.add_argument("--only-best", action="store_true", help="measure the best epochs alone")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--plot", type=Path, default=None)
    args = parser.parse_args()
    dataset, found = Dataset.load(args.data), dict[str, tuple[Moment, ...]]()
    people, sigma = people_of(dataset, args), None
    for setting in args.setting:
        name, _, config = setting.partition("=")
        files = snapshots(dataset, Path(config), args.out / name, args.seed, args.epochs)
        best = next(one for one in files if one.name == "best.safetensors")
        if args.one_unit and sigma is None:
            sigma = noise_of(trained_at(Snapshot.load(best), dataset), people)
        found[name] = moments(
            dataset,
            [best] if args.only_best else files,
            people,
            sigma=sigma,
            n_draws=args.draws,
            seed=args.seed,
            n_resamples=args.resamples,
        )
    told = {
        "settings": {name: [of_moment(one) for one in some] for name, some in found.items()},
        "at equal loss": at_equal_loss(found),
        "at best": at_best(found),
    }
    print(f"{tables(told)}\n\nat the best epochs\n{differences(told['at best'])}")
    if args.json is not None:
        write_json(args.json, json.loads(json.dumps(told), parse_constant=lambda _: None))
    if args.plot is not None:
        with publish_file(args.plot) as aside:
            draw(told).savefig(aside)


if __name__ == "__main__":
    main()
