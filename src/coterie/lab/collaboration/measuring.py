"""Everything that is measured of one setting."""

import json

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.split import Part
from coterie.errors import ConfigError
from coterie.evaluation.evaluate import evaluate
from coterie.evaluation.report import EvaluationReport
from coterie.lab.collaboration.analysis import QUALITY, AnalysisOptions, AnalysisSetting, Findings
from coterie.lab.collaboration.bottleneck import measure_bottleneck
from coterie.lab.collaboration.distances import w2_distances
from coterie.lab.collaboration.drift import Drift, neighbourhood_drift
from coterie.lab.collaboration.helping import helping
from coterie.lab.collaboration.influence import InfluenceCurve, influence_by_distance
from coterie.lab.collaboration.pairs import distance_by_kind
from coterie.lab.collaboration.posteriors import Posteriors, encode_users
from coterie.lab.collaboration.semantics import semantics
from coterie.lab.collaboration.sharing import (
    SharingPairs,
    TheoremTable,
    draw_pairs,
    lipschitz_estimate,
    sharing_pairs,
    theorem_table,
)
from coterie.lab.collaboration.teaching import People, Teaching, Trained, teaching
from coterie.lab.collaboration.transfer import UserDraws, draw_users, gradient_transfer
from coterie.models.kinds import AlignedConfig
from coterie.networks.autoencoder import VariationalAutoencoder
from coterie.running.progress import Progress, Update
from coterie.sparse import SparseRows, gather_sum

STEPPED = 200
"""Different users v on whom real steps are taken: ten pairs each of 2,000."""


class Measuring:
    """One setting under the microscope.

    Args:
        setting: The model.
        dataset: That it was trained on.
        users: Rows of the training matrix whose transfer is measured.
        map_users: Rows in the neighbourhoods.
        options: How much.
        progress: Called as it goes on.
    """

    def __init__(
        self,
        setting: AnalysisSetting,
        dataset: Dataset,
        users: np.ndarray,
        map_users: np.ndarray,
        options: AnalysisOptions,
        progress: Progress,
    ) -> None:
        network, model = setting.model.network, setting.model.config.model
        assert isinstance(model, AlignedConfig)
        assert isinstance(network, VariationalAutoencoder)
        self.setting, self.network, self.model = setting, network, model
        self.dataset, self.options, self.progress = dataset, options, progress
        self.map_histories = dataset.train[map_users]
        device = setting.model.device
        self.rows = SparseRows.from_csr(dataset.train[users], device)
        self.map_rows = SparseRows.from_csr(self.map_histories, device)
        self.generator = torch.Generator(device).manual_seed(options.seed)
        self.anchors = None if setting.anchors is None else setting.anchors.to(device)

    def findings(self, kinds: np.ndarray, people: People | None) -> Findings:
        """All of it.

        Args:
            kinds: ``[n, n]`` of ``users``, as `classify_pairs` gives them.
            people: Between whom teaching is measured; None measures none.
        """
        seed = self.options.seed
        transfer, norms = self._transfer()
        posteriors = encode_users(self.network, self.rows)
        distance = w2_distances(posteriors, posteriors).cpu().numpy()
        by_distance, by_angle = self._influence(transfer, norms, posteriors, distance)
        sharing, theorem = self._sharing(posteriors)
        taught, untaught = self._teaching(people)
        self._tell("bottleneck")
        map_posteriors = encode_users(self.network, self.map_rows)
        near = self.options.neighbours
        return Findings(
            name=self.setting.name,
            model=self.model.name,
            keep_prob=self.model.keep_prob,
            kl_weight=self.model.kl_weight,
            pia=self.model.pia,
            rest=_rest(self.setting.model.config),
            quality=self._quality(),
            bottleneck=measure_bottleneck(map_posteriors, n_draws=self.options.draws, seed=seed),
            drift=self._drift(),
            influence=by_distance,
            influence_by_angle=by_angle,
            transfer=helping(transfer, kinds, seed=seed),
            cosine=helping(_cosines(transfer, norms), kinds, seed=seed),
            teaching=taught,
            untaught=untaught,
            semantics=semantics(map_posteriors, self.map_histories, near, seed=seed),
            distances=distance_by_kind(distance, kinds, seed=seed),
            sharing=sharing,
            theorem=theorem,
            map_posteriors=map_posteriors,
            anchors=self.anchors,
        )

    def _tell(self, what: str) -> None:
        self.progress(Update(f"{self.setting.name}: {what}"))

    def _transfer(self) -> tuple[np.ndarray, np.ndarray]:
        """Over the decoder, and the norms."""
        self._tell("transfer")
        drawn = self._drawn_as_in_training()
        found = gradient_transfer(self.network, drawn, progress=self.progress).cpu().numpy()
        return found, np.sqrt(found.diagonal().clip(min=0))

    def _drawn_as_in_training(self) -> UserDraws:
        """Latent points as the decoder meets them in training: a mask of its own for each."""
        keep_prob, generator = self.model.keep_prob, self.generator
        points = [
            encode_users(self.network, self.rows, keep_prob=keep_prob, generator=generator).draw(
                1, generator
            )[0]
            for _ in range(self.options.draws)
        ]
        return UserDraws(self.rows, torch.stack(points, dim=1))

    def _influence(
        self,
        transfer: np.ndarray,
        norms: np.ndarray,
        posteriors: Posteriors,
        distance: np.ndarray,
    ) -> tuple[InfluenceCurve, InfluenceCurve]:
        """By latent distance and by angle."""
        directions, seed = functional.normalize(posteriors.mu, dim=1), self.options.seed
        angle = 1 - (directions @ directions.T).cpu().numpy()
        by_distance, by_angle = (
            influence_by_distance(transfer, one, norms, seed=seed) for one in (distance, angle)
        )
        return by_distance, by_angle

    def _sharing(self, posteriors: Posteriors) -> tuple[SharingPairs, TheoremTable]:
        self._tell("sharing radius")
        n, options = len(self.rows), self.options
        drawn = draw_users(posteriors, self.rows, options.draws, self.generator)
        pairs = draw_pairs(n, 2 * n, options.seed, n_others=STEPPED)
        slope = lipschitz_estimate(self.network, posteriors, self.rows, n, self.generator)
        found = sharing_pairs(self.network, posteriors, drawn, *pairs, slope)
        rates = np.array(options.learning_rates)
        return found, theorem_table(self.network, drawn, found, rates, progress=self.progress)

    def _teaching(self, people: People | None) -> tuple[Teaching | None, str]:
        """What steps give, or why that was not measured."""
        if people is None:
            return None, "there are no validation users to teach"
        self._tell("teaching")
        size = self.setting.model.config.training.batch_size
        trained = Trained(self.network, self.model, self.anchors, batch_size=size)
        try:
            options = self.options
            return (
                teaching(
                    trained,
                    people,
                    n_draws=options.draws,
                    seed=options.seed,
                    progress=self.progress,
                ),
                "",
            )
        except ConfigError as error:
            return None, str(error)

    def _drift(self) -> tuple[Drift, ...]:
        self._tell("drift")
        options, centroids = self.options, self._centroids()
        return tuple(
            neighbourhood_drift(
                self.network,
                self.map_rows,
                keep_prob=keep_prob,
                k=options.neighbours,
                n_draws=options.draws,
                seed=options.seed,
                centroids=centroids,
                progress=self.progress,
            )
            for keep_prob in options.keep_probs
        )

    def _centroids(self) -> Tensor | None:
        if self.anchors is None:
            return None
        return gather_sum(self.map_rows, self.anchors) / self.map_rows.counts.unsqueeze(1)

    def _quality(self) -> EvaluationReport | None:
        cases = self.dataset.cases(Part.VALIDATION)
        if not len(cases.user_index):
            return None
        ids = self.dataset.users
        return evaluate(self.setting.model, cases, metrics=(QUALITY,), user_ids=ids)


def _cosines(transfer: np.ndarray, norms: np.ndarray) -> np.ndarray:
    cosines: np.ndarray = transfer / np.maximum(np.outer(norms, norms), np.finfo(np.float32).tiny)
    return cosines


def _rest(config: RunConfig) -> str:
    """What two settings must have in common to differ in keep_prob, the weight of the KL or λ_A
    alone.
    """
    shown_apart = ("keep_prob", "beta", "gamma", "seed")
    return json.dumps(
        {
            part: {
                name: value
                for name, value in fields.items()
                if name not in shown_apart and not name.startswith("pia")
            }
            for part, fields in config.as_json().items()
        }
    )
