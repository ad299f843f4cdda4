"""What becomes of a linear item–item path that is trained together with the autoencoder, instead of
being added to it.

    python benchmarks/paths_together.py DATA [--json FILE]

Logits f(z) + s · x B, with s learned from 10 on and B EASE's, under the multinomial likelihood: B
fitted to all training users or, by five folds, without the user at hand; x clean or masked like the
encoder's input; the likelihood of all of a user's items or of the masked ones among what was not
shown. Prints the best epoch's validation NDCG@100 of each, beside EASE's, the autoencoder's and
that of their sum with 10. Validation users only.
"""

import argparse
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from coterie.config import TrainingConfig
from coterie.data.dataset import Dataset
from coterie.data.split import Part
from coterie.evaluation.evaluate import evaluate
from coterie.files import write_json
from coterie.models.multvae import MultVAEConfig
from coterie.networks.autoencoder import input_scale
from coterie.networks.ease import Ease
from coterie.networks.multvae import MultVAE
from coterie.objectives.divergence import gaussian_kl
from coterie.objectives.masking import mask_items
from coterie.objectives.schedules import linear_warm_up
from coterie.sparse import SparseRows
from coterie.training.randomness import NOISE, ORDER, seeded
from coterie.training.step import TrainingStep

METRIC, FOLDS, START, KEEP = "ndcg@100", 5, 10.0, 0.5


@dataclass
class Both:
    """A scorer: logits plus s times the linear path; without a network the path alone, without a
    path the network alone.
    """

    n_items: int
    network: MultVAE | None
    path: Ease | None
    weight: Tensor

    def score(self, histories: csr_array) -> Tensor:
        """``[n, n_items]``."""
        rows = SparseRows.from_csr(histories)
        with torch.no_grad():
            scores = (
                torch.zeros(len(rows), self.n_items)
                if self.network is None
                else self.network.score(rows)
            )
            return scores if self.path is None else scores + self.weight * self.path.score(rows)


def descend(
    data: Dataset,
    paths: list[Ease],
    *,
    masked: bool,
    hidden_only: bool,
    l2: float,
    epochs: int,
    patience: int,
) -> float:
    """Trains one variant; ``paths`` has one entry, or one a fold."""
    step = TrainingStep(data.n_items, MultVAEConfig(), TrainingConfig(seed=1))
    network, train, cases = (
        step.network,
        SparseRows.from_csr(data.train),
        data.cases(Part.VALIDATION),
    )
    assert isinstance(network, MultVAE)
    fold = torch.from_numpy(folds(len(train))) % len(paths)
    weight = torch.tensor(START, requires_grad=True)
    adam = torch.optim.Adam(
        [{"params": network.parameters(), "lr": 1e-3}, {"params": [weight], "lr": 1e-2}]
    )
    scorer = Both(data.n_items, network, Ease.fit(data.train, l2), weight)
    best, best_epoch, steps = 0.0, 0, 0
    for epoch in range(epochs):
        for users in torch.split(
            torch.randperm(len(train), generator=seeded(1, ORDER, epoch)), 200
        ):
            rows, generator = train.take(users), seeded(1, NOISE, steps)
            kept = mask_items(rows, KEEP, generator)
            mu, logvar = network.posterior(kept, input_scale(rows.counts) / KEEP)
            logits = network.decode(
                mu + (logvar / 2).exp() * torch.randn(mu.shape, generator=generator)
            )
            logits = logits + weight * linear(kept if masked else rows, paths, fold[users]) / (
                KEEP if masked else 1
            )
            targets = dense(rows)
            if hidden_only:
                targets, logits = (
                    targets - dense(kept),
                    logits.masked_fill(dense(kept) > 0, -torch.inf),
                )
            nll = -(logits.log_softmax(dim=1).clamp(min=-1e9) * targets).sum() / len(users)
            adam.zero_grad()
            (nll + linear_warm_up(steps, 1000, 0.2) * gaussian_kl(mu, logvar).mean()).backward()  # type: ignore[no-untyped-call]
            adam.step()
            steps += 1
        found = evaluate(scorer, cases, metrics=(METRIC,)).mean(METRIC)
        best, best_epoch = (found, epoch) if found > best else (best, best_epoch)
        if epoch - best_epoch >= patience:
            break
    return best


def folds(n_users: int) -> np.ndarray:
    """``[n_users]`` the fold of each training user."""
    return np.random.default_rng(0).integers(0, FOLDS, n_users)


def linear(rows: SparseRows, paths: list[Ease], fold: Tensor) -> Tensor:
    """``[n_users, n_items]`` path scores, each user's by the path of their fold."""
    scores = torch.zeros(len(rows), rows.n_items)
    for number, path in enumerate(paths):
        mine = (fold == number).nonzero().squeeze(1)
        scores[mine] = path.score(rows.take(mine))
    return scores


def dense(rows: SparseRows) -> Tensor:
    matrix = torch.zeros(len(rows), rows.n_items)
    matrix[rows.row, rows.indices] = 1
    return matrix


def alone(data: Dataset, l2: float, epochs: int, patience: int) -> dict[str, float]:
    """EASE, the autoencoder trained as always, and their sum with the weight that the others start
    from.
    """
    path, none, cases = (
        Ease.fit(data.train, l2),
        torch.tensor(START),
        data.cases(Part.VALIDATION),
    )
    step, train = (
        TrainingStep(data.n_items, MultVAEConfig(), TrainingConfig(seed=1)),
        SparseRows.from_csr(data.train),
    )
    assert isinstance(step.network, MultVAE)
    scorers = {
        "autoencoder": Both(data.n_items, step.network, None, none),
        "their sum": Both(data.n_items, step.network, path, none),
    }
    best = dict.fromkeys(scorers, (0.0, 0))
    for epoch in range(epochs):
        for users in torch.split(
            torch.randperm(len(train), generator=seeded(1, ORDER, epoch)), 200
        ):
            step(train.take(users))
        for name, scorer in scorers.items():
            best[name] = max(
                best[name], (evaluate(scorer, cases, metrics=(METRIC,)).mean(METRIC), epoch)
            )
        if epoch - max(when for _, when in best.values()) >= patience:
            break
    ease = evaluate(Both(data.n_items, None, path, none), cases, metrics=(METRIC,)).mean(METRIC)
    return {"EASE": ease, **{name: value for name, (value, _) in best.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--l2", type=float, default=800.0)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--patience", type=int, default=8)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    data = Dataset.load(args.data)
    found = alone(data, args.l2, args.epochs, args.patience)
    for name, value in found.items():
        print(f"{name:60} {value:.4f}", flush=True)
    of_fold = folds(data.train.shape[0])
    rest = [
        Ease.fit(
            csr_array(data.train[np.flatnonzero(of_fold != one)]),
            args.l2 * (FOLDS - 1) / FOLDS,
        )
        for one in range(FOLDS)
    ]
    paths = {
        "fitted to all": [Ease.fit(data.train, args.l2)],
        "fitted without the user": rest,
    }
    for (fitted, path), masked, hidden_only in product(paths.items(), (False, True), (False, True)):
        if hidden_only and not masked:
            continue  # a clean path has seen what is asked for
        name = (
            f"together, {fitted}, {'masked' if masked else 'clean'} input,"
            f" {'masked items' if hidden_only else 'all items'}"
        )
        found[name] = descend(
            data,
            path,
            masked=masked,
            hidden_only=hidden_only,
            l2=args.l2,
            epochs=args.epochs,
            patience=args.patience,
        )
        print(f"{name:60} {found[name]:.4f}", flush=True)
    if args.json:
        write_json(args.json, found)


if __name__ == "__main__":
    main()
