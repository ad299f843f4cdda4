"""The weight of a linear path, chosen beside an autoencoder that is already trained.

    python benchmarks/path_weight.py RUN --config CONFIG.toml [--weights 1 3 10 30 100] [--metric ndcg@20 …] [--out FOLDER]

CONFIG is that of a linear-path-vae with the autoencoder of RUN: training does not see the path, so that training it anew
with the chosen weight gives the same model, unless another epoch is best then. Every weight is measured on validation users;
with the best one, once, on test users. ``--refit`` names the run of the last training, on training and validation items together:
the test is then of that one, beside a path fitted to the same. ``--out`` saves the model that was tested.
"""

import argparse
from pathlib import Path

from coterie.config import RunConfig, read_values
from coterie.data.dataset import Dataset
from coterie.data.split import Part
from coterie.evaluation.evaluate import evaluate
from coterie.models.linear_path_vae import LinearPathVAE
from coterie.training.networks import build_network, fit_path
from coterie.training.run_folder import dataset_folder
from coterie.training.trained_model import TrainedModel


def beside(model: TrainedModel, config: RunConfig, dataset: Dataset) -> TrainedModel:
    """The model with the path of ``config`` fitted to the same data."""
    network = build_network(model.n_items, config.model)  # type: ignore[arg-type]
    fit_path(network, config.model, dataset.train, "cpu")
    own = model.network.state_dict()
    network.load_state_dict(network.state_dict() | own)
    return TrainedModel(network.eval(), config, model.items, model.titles, model.popularity, model.provenance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--weights", type=float, nargs="+", default=[0, 1, 3, 10, 30, 100])
    parser.add_argument("--metric", nargs="+", default=["ndcg@20", "recall_of_held_out@20"], help="the first one chooses")
    parser.add_argument("--refit", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    trained, dataset, values = TrainedModel.load(args.run), Dataset.load(dataset_folder(args.run)), read_values(args.config)
    model = beside(trained, RunConfig.of(values), dataset)
    assert isinstance(model.network, LinearPathVAE)
    found: dict[float, float] = {}
    for weight in args.weights:
        model.network.path_weight = weight
        report = evaluate(model, dataset.cases(Part.VALIDATION), metrics=args.metric)
        found[weight] = report.mean(args.metric[0])
        print(f"validation, weight {weight:g}: " + ", ".join(f"{name} {report.mean(name):.4f}" for name in args.metric), flush=True)
    best = max(found, key=lambda weight: found[weight])
    values["model"]["path_weight"] = best
    last, everything = (TrainedModel.load(args.refit), dataset.without_validation()) if args.refit else (trained, dataset)
    chosen = beside(last, RunConfig.of(values), everything)
    report = evaluate(chosen, dataset.cases(Part.TEST), metrics=args.metric)
    print(f"test, weight {best:g}: " + ", ".join(f"{n} {report.mean(n):.4f} ± {report.standard_error(n):.4f}" for n in args.metric))
    if args.out is not None:
        chosen.save(args.out)


if __name__ == "__main__":
    main()
