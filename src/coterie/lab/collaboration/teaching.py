"""Who teaches whom: what steps on training users give people that were never trained on.

u are validation users: their fold-in is shown, their hidden items are what the step should find. v
are training users, whose whole objective is stepped down. So the measure sees all parameters, PIA
through the encoder, and the loss that collaboration is about.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from coterie.data.split import Cases
from coterie.evaluation.cohorts import DEFAULT_COHORTS, cohort_members
from coterie.lab.collaboration.adam import estimated_second_moments
from coterie.lab.collaboration.exchange import PARTS, Exchange, Part, exchange
from coterie.lab.collaboration.helping import Helping, helping
from coterie.lab.collaboration.hidden import hidden_nll
from coterie.lab.collaboration.layers import Direction
from coterie.lab.collaboration.losses import (
    LONG_AGO,
    HiddenItems,
    Loss,
    Reconstruction,
    Side,
    WholeObjective,
    drawn_as_trained,
    mean_path,
    whole_objective,
)
from coterie.lab.collaboration.pairs import PairRules, classify_pairs
from coterie.models.kinds import AlignedConfig
from coterie.networks.autoencoder import VariationalAutoencoder
from coterie.running.progress import Progress, silent
from coterie.sparse import SparseRows

Asked: TypeAlias = Literal["reconstruction", "hidden"]
Stepped: TypeAlias = Literal["gradient", "adam"]


class Measure(NamedTuple):
    """Which transfer."""

    loss: Asked
    """What u loses: the reconstruction of what was shown, or the hidden items."""

    step: Stepped
    """Down v's gradient, or as Adam scales it."""

    part: Part
    """Of the parameters."""

    def __str__(self) -> str:
        return "/".join(self)


WHOLE = Measure("hidden", "gradient", "all")
"""The one to read first."""


@dataclass(frozen=True, eq=False)
class People:
    """Between whom transfer is measured.

    Args:
        shown: ``[n, n_items]`` what is folded in of u.
        hidden: ``[n, n_items]`` what is to be found.
        others: ``[m, n_items]`` histories of v.
        kinds: ``[n, m]`` as `classify_pairs` finds them from what is shown.
        cohorts: Names, by number of interactions; a user's are those shown and hidden.
        user_cohort: ``[n]`` positions among ``cohorts``.
        other_cohort: ``[m]``.
        by_adam: Positions of the v whose step as Adam scales it is measured.
    """

    shown: csr_array
    hidden: csr_array
    others: csr_array
    kinds: np.ndarray
    cohorts: tuple[str, ...]
    user_cohort: np.ndarray
    other_cohort: np.ndarray
    by_adam: np.ndarray

    @classmethod
    def of(
        cls,
        cases: Cases,
        others: csr_array,
        rules: PairRules | None = None,
        *,
        n_by_adam: int = 100,
        seed: int = 0,
        lower_bounds: tuple[int, ...] = DEFAULT_COHORTS,
    ) -> "People":
        """Classifies pairs and people.

        Args:
            cases: u.
            others: ``[m, n_items]`` histories of v, every one with an item.
            rules: What near, far and related mean.
            n_by_adam: How many of v to measure by Adam's step, which costs more.
            seed: Of drawing these.
            lower_bounds: Of the cohorts.
        """
        counts = np.diff(cases.fold_in.indptr) + np.diff(cases.held_out.indptr)
        of_others = np.diff(others.indptr)
        members = cohort_members(np.concatenate([counts, of_others]), lower_bounds)
        place = np.stack(list(members.values())).argmax(axis=0)
        drawn = np.random.default_rng(seed).permutation(others.shape[0])[:n_by_adam]
        return cls(
            cases.fold_in,
            cases.held_out,
            others,
            classify_pairs(cases.fold_in, rules, others),
            tuple(members),
            place[: len(counts)],
            place[len(counts) :],
            np.sort(drawn),
        )

    @property
    def pairs_of_cohorts(self) -> np.ndarray:
        """``[n, m]`` u's cohort · number of cohorts + v's."""
        pairs: np.ndarray = np.add.outer(self.user_cohort * len(self.cohorts), self.other_cohort)
        return pairs

    def asked(self, device: torch.device | str) -> dict[Asked, Side]:
        """Those who are asked, on the mean path, by loss."""
        shown, hidden = (SparseRows.from_csr(one, device) for one in (self.shown, self.hidden))
        losses: dict[Asked, Loss] = {
            "reconstruction": Reconstruction(shown),
            "hidden": HiddenItems(shown, hidden),
        }
        return {name: mean_path(shown, loss) for name, loss in losses.items()}


@dataclass(frozen=True, eq=False)
class Teaching:
    """What v's steps give u, as cosines of u's gradient with v's step: each pair counts alike.

    Args:
        by_kind: Divided among the kinds of pairs.
        by_cohort: `WHOLE` divided among pairs of cohorts, u's · number of cohorts + v's.
        cohorts: Their names.
        n_of_cohort: ``[2, n_cohorts]`` u's and v's of each.
        nats: `WHOLE`, not as cosines but <g_u, s_v> itself: nats of u's loss that a step on v takes
            away, times the learning rate. Heavy users count for more.
        encoder_share: Medians over u of the encoder's share of ‖g_u‖², over v of that of ‖s_v‖².
        hidden_nats: Mean over u of the loss of their hidden items.
    """

    by_kind: Mapping[Measure, Helping]
    by_cohort: Helping
    cohorts: tuple[str, ...]
    n_of_cohort: np.ndarray
    nats: Helping
    encoder_share: tuple[float, float]
    hidden_nats: float

    def cohort_matrix(self) -> np.ndarray:
        """``[n_cohorts, n_cohorts, 3]``: net mean cosine of u's cohort (row) with v's (column), and
        the ends of its interval; NaN without pairs.
        """
        n = len(self.cohorts)
        cells = [self.by_cohort.mean_of(cell) for cell in range(n * n)]
        return np.array(cells).reshape(n, n, 3)


@dataclass(frozen=True, eq=False)
class Trained:
    """A model at the end of an epoch, and what its steps are made of.

    Args:
        network: Its weights.
        model: Its configuration.
        anchors: ``[n_items, latent_dim]`` PIA's.
        second_moments: Adam's; None estimates them over a pass of ``batch_size``.
        batch_size: Of training.
        n_steps: Steps taken before, for what is scheduled.
        unit: That the network was brought to by `coterie.lab.collaboration.latent_unit.in_unit`;
            second moments are of that unit.
    """

    network: VariationalAutoencoder
    model: AlignedConfig
    anchors: Tensor | None = None
    second_moments: Direction | None = None
    batch_size: int = 200
    n_steps: int = LONG_AGO
    unit: float = 1.0

    def objective(self, rows: SparseRows) -> WholeObjective:
        """Of the histories of users to step on."""
        found = whole_objective(self.model, self.network, rows, self.anchors, self.n_steps)
        return replace(found, unit=self.unit)


def teaching(
    trained: Trained,
    people: People,
    *,
    n_draws: int = 4,
    seed: int = 0,
    n_resamples: int = 1000,
    progress: Progress = silent,
) -> Teaching:
    """Measures what steps on v give u, by loss, step and part of the parameters.

    Of a model with a linear path it is the autoencoder alone: the path is fitted, not stepped, and
    its scores are no part of the likelihood.

    Args:
        trained: The model.
        people: u and v.
        n_draws: Masks and latent points of each v, as in training; 0 = the mean path. u are on the
            mean path, as they are scored.
        seed: Of masks, noise and resamples.
        n_resamples: Of the bootstrap over u and over v.
        progress: Called after every block of v.

    Raises:
        ConfigError: if the objective or the network cannot be measured (`whole_objective`,
            `exchange`).
    """
    found = _exchanges(trained, people, n_draws, seed, progress)
    people_drawn: Any = {"seed": seed, "n_resamples": n_resamples, "same": False}
    by_kind = {
        Measure(loss, step, part): helping(one.cosine(part), _kinds(people, step), **people_drawn)
        for (loss, step), one in found.items()
        for part in PARTS
    }
    whole, n = found[WHOLE.loss, WHOLE.step], len(people.cohorts)
    by_cohort = helping(whole.cosine(), people.pairs_of_cohorts, n_groups=n * n, **people_drawn)
    sizes = [np.bincount(one, minlength=n) for one in (people.user_cohort, people.other_cohort)]
    return Teaching(
        by_kind,
        by_cohort,
        people.cohorts,
        np.stack(sizes),
        helping(whole.transfer(), people.kinds, **people_drawn),
        (_encoder_share(whole.user_norms), _encoder_share(whole.other_norms)),
        _hidden_nats(trained.network, people),
    )


def _kinds(people: People, step: Stepped) -> np.ndarray:
    return people.kinds if step == "gradient" else people.kinds[:, people.by_adam]


def _exchanges(
    trained: Trained, people: People, n_draws: int, seed: int, progress: Progress
) -> dict[tuple[Asked, Stepped], Exchange]:
    network, model, device = trained.network, trained.model, trained.network.output.weight.device
    generator = torch.Generator(device).manual_seed(seed)
    rows = SparseRows.from_csr(people.others, device)
    objective = trained.objective(rows)
    drawn = drawn_as_trained(objective, model.latent_dim, model.keep_prob, n_draws, generator)
    asked = people.asked(device)
    found: dict[tuple[Asked, Stepped], Exchange] = {
        (loss, "gradient"): exchange(network, side, drawn, progress=progress)
        for loss, side in asked.items()
    }
    moments = trained.second_moments or estimated_second_moments(
        network,
        objective,
        keep_prob=model.keep_prob,
        batch_size=trained.batch_size,
        generator=generator,
    )
    some = drawn.take(torch.from_numpy(people.by_adam).to(device))
    found["hidden", "adam"] = exchange(
        network, asked["hidden"], some, second_moments=moments, progress=progress
    )
    return found


def _encoder_share(norms: Mapping[str, np.ndarray]) -> float:
    squares = {part: norm**2 for part, norm in norms.items()}
    whole = np.maximum(squares["encoder"] + squares["decoder"], np.finfo(float).tiny)
    return float(np.median(squares["encoder"] / whole))


def _hidden_nats(network: VariationalAutoencoder, people: People) -> float:
    device = network.output.weight.device
    shown, hidden = (SparseRows.from_csr(one, device) for one in (people.shown, people.hidden))
    with torch.no_grad():
        return float(hidden_nll(network.decode(network.point(shown)), shown, hidden).mean())
