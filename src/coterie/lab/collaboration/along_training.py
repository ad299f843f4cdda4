"""Teaching along a training, and at equal loss.

At equal epochs a setting that learns more slowly is seen earlier in its life. So settings are also
compared where each first reaches one loss of hidden items.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from coterie.data.dataset import Dataset
from coterie.errors import DataError
from coterie.lab.collaboration.latent_unit import in_unit
from coterie.lab.collaboration.posteriors import encode_users
from coterie.lab.collaboration.snapshots import Snapshot
from coterie.lab.collaboration.teaching import Measure, People, Teaching, Trained, teaching
from coterie.models.kinds import AlignedConfig
from coterie.running.progress import Progress, Update, silent
from coterie.sparse import SparseRows


@dataclass(frozen=True, eq=False)
class Moment:
    """What a snapshot teaches.

    Args:
        epoch: Of the snapshot.
        best: Whether validation chose it.
        quality: The validation metric.
        hidden_nats: Mean loss of the hidden items of those who were asked.
        teaching: What was measured.
    """

    epoch: int
    best: bool
    quality: float | None
    hidden_nats: float
    teaching: Teaching


def moments(
    dataset: Dataset,
    files: Iterable[str | Path],
    people: People,
    *,
    n_draws: int = 4,
    seed: int = 0,
    n_resamples: int = 1000,
    sigma: float | None = None,
    progress: Progress = silent,
) -> tuple[Moment, ...]:
    """Measures snapshots of one training on the same people, draws and resamples.

    Args:
        dataset: That it was trained on.
        files: From `coterie.lab.collaboration.snapshots.train_with_snapshots`.
        people: Between whom.
        n_draws: As of `teaching`, as is the rest.
        seed: Of masks, noise and resamples.
        n_resamples: Of the bootstrap.
        sigma: Every snapshot is brought to the unit of its latent space in which posteriors are of
            this noise (`noise_of`); None leaves each in its own. In another unit Adam's moments
            are estimated.
        progress: Called after every snapshot.
    """
    found, files = [], list(files)
    for done, file in enumerate(files, start=1):
        snapshot = Snapshot.load(file)
        trained = trained_at(snapshot, dataset)
        taught = teaching(
            trained if sigma is None else at_noise(trained, people, sigma),
            people,
            n_draws=n_draws,
            seed=seed,
            n_resamples=n_resamples,
        )
        found.append(
            Moment(snapshot.epoch, snapshot.best, snapshot.quality, taught.hidden_nats, taught)
        )
        progress(Update("teaching along training", done, len(files), "snapshots"))
    return tuple(sorted(found, key=lambda one: one.epoch))


def trained_at(snapshot: Snapshot, dataset: Dataset) -> Trained:
    """A snapshot with what is scheduled where it was."""
    model, training = snapshot.config.model, snapshot.config.training
    assert isinstance(model, AlignedConfig)
    n_users: int = dataset.train.shape[0]
    steps = snapshot.epoch * len(model.passes) * math.ceil(n_users / training.batch_size)
    return Trained(
        snapshot.network(dataset.n_items),
        model,
        snapshot.anchors,
        snapshot.second_moments,
        training.batch_size,
        steps,
    )


def noise_of(trained: Trained, people: People) -> float:
    """Root mean square length of a posterior's noise, √(Σ σ²), of those who are asked."""
    device = trained.network.output.weight.device
    users = encode_users(trained.network, SparseRows.from_csr(people.shown, device))
    return float(users.sigma.square().sum(dim=1).mean().sqrt())


def at_noise(trained: Trained, people: People, sigma: float) -> Trained:
    """The same model in the unit in which `noise_of` is ``sigma``."""
    unit = noise_of(trained, people) / sigma
    network = in_unit(trained.network, unit)
    return replace(trained, network=network, second_moments=None, unit=trained.unit * unit)


def reached_by_all(settings: Sequence[Sequence[Moment]]) -> float:
    """The lowest loss of hidden items that every setting reaches."""
    return max(min(one.hidden_nats for one in moments) for moments in settings)


def means_at(
    moments: Sequence[Moment], hidden_nats: float, measure: Measure, *groups: int
) -> np.ndarray:
    """Net means where the loss of hidden items first falls to a level, between the two snapshots
    around it as the line between them has it.

    Args:
        moments: Of one training, by epoch.
        hidden_nats: The level.
        measure: Which transfer.
        groups: Kinds of pairs, together.

    Returns:
        ``[1 + n_resamples]``, that of the sample itself first: for `with_interval`, and for paired
        differences between settings.

    Raises:
        DataError: if no snapshot reaches the level, or the first one is below it.
    """
    losses = [one.hidden_nats for one in moments]
    means = [one.teaching.by_kind[measure].means(*groups) for one in moments]
    after = next((at for at, loss in enumerate(losses) if loss <= hidden_nats), None)
    if after is None or (after == 0 and losses[0] < hidden_nats):
        raise DataError(
            f"the loss must pass {hidden_nats:.2f} nats between two snapshots, found"
            f" {losses[0]:.2f} at first and {min(losses):.2f} at best; take another level."
        )
    if after == 0:
        return means[0]
    share = (losses[after - 1] - hidden_nats) / (losses[after - 1] - losses[after])
    between: np.ndarray = (1 - share) * means[after - 1] + share * means[after]
    return between
