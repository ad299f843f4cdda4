"""A linear path and its weight, chosen beside an autoencoder that is already trained.

    python benchmarks/path_weight.py RUN --config CONFIG.toml … [--weights 1 3 10 30 100] [--metric
    ndcg@20 …] [--test] [--out FOLDER]

Each CONFIG has a linear path beside the autoencoder of RUN: training does not see the path, so that
training it anew with the chosen one gives the same model, unless another epoch is best then. Every
path is measured with every weight on validation users, with ``--test`` the best one, once, on test
users. ``--refit`` names the run of the last training, on training and validation items together:
the test is then of that one, beside a path fitted to the same. ``--out`` saves the model that was
tested.
"""

import argparse
from pathlib import Path

from coterie.config import RunConfig, read_values
from coterie.data.dataset import Dataset
from coterie.data.split import Part
from coterie.evaluation.evaluate import evaluate
from coterie.models.linear_path import LinearPathConfig
from coterie.networks.linear_path import LinearPath
from coterie.training.runs import load_run
from coterie.training.trained_model import TrainedModel


def beside(model: TrainedModel, config: RunConfig, dataset: Dataset) -> TrainedModel:
    """The model with the path of ``config`` fitted to the same data."""
    assert isinstance(config.model, LinearPathConfig)
    network = config.model.empty(model.n_items)
    config.model.fit_beside(network, dataset.train)
    own = model.network.state_dict()
    network.load_state_dict(network.state_dict() | own)
    return TrainedModel(
        network.eval(), config, model.items, model.titles, model.popularity, model.provenance
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--config", type=Path, nargs="+", required=True)
    parser.add_argument("--weights", type=float, nargs="+", default=[0, 1, 3, 10, 30, 100])
    parser.add_argument(
        "--metric",
        nargs="+",
        default=["ndcg@20", "recall_of_held_out@20"],
        help="the first one chooses",
    )
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--refit", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    run = load_run(args.run, device="cpu")
    trained, dataset = run.model, run.dataset
    found: dict[tuple[Path, float], float] = {}
    for path in args.config:
        model = beside(trained, RunConfig.of(read_values(path)), dataset)
        assert isinstance(model.network, LinearPath)
        for weight in args.weights:
            model.network.path_weight = weight
            report = evaluate(model, dataset.cases(Part.VALIDATION), metrics=args.metric)
            found[path, weight] = report.mean(args.metric[0])
            values = ", ".join(f"{name} {report.mean(name):.4f}" for name in args.metric)
            print(f"validation, {path.name}, weight {weight:g}: {values}", flush=True)
    best, weight = max(found, key=lambda choice: found[choice])
    print(f"best: {best.name}, weight {weight:g}")
    if not args.test:
        return
    chosen = read_values(best)
    chosen["model"]["path_weight"] = weight
    last, everything = (
        (TrainedModel.load(args.refit), dataset.without_validation())
        if args.refit
        else (trained, dataset)
    )
    model = beside(last, RunConfig.of(chosen), everything)
    report = evaluate(model, dataset.cases(Part.TEST), metrics=args.metric)
    means = (
        f"{name} {report.mean(name):.4f} ± {report.standard_error(name):.4f}"
        for name in args.metric
    )
    print(f"test: {', '.join(means)}")
    if args.out is not None:
        model.save(args.out)


if __name__ == "__main__":
    main()
