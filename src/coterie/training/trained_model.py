"""The trained model: a scorer with its vocabulary, and the self-contained artifact it is saved as.

The artifact is a folder of plain files: ``weights.safetensors`` (no anchors: serving needs none),
``items.parquet`` (ids, titles, popularity) and ``manifest.json`` (schema, configuration,
checksums). Nothing in it is unpickled, and no training data is needed to load it.
"""

import json
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_array
from torch import Tensor

import coterie
from coterie.config import RunConfig
from coterie.data.ids import Id, IdMap
from coterie.errors import ArtifactError, ConfigError, DataError
from coterie.files import publish_folder, write_manifest
from coterie.networks.network import InnerProduct, Network, Variational
from coterie.ranking.explanation import Explanation, explain
from coterie.ranking.histories import Histories, UserItems
from coterie.ranking.identity import ModelIdentity, fingerprint
from coterie.ranking.options import RankingFields, RankingOptions
from coterie.ranking.recommendations import Recommendations
from coterie.ranking.recommender import Recommender
from coterie.ranking.similar import SimilarItem, similar_items
from coterie.running.progress import Progress, silent
from coterie.sparse import SparseRows
from coterie.training.artifact import SCHEMA, model_folder, read_model_manifest

# Ranking objects that a model keeps.
_KEPT = 4


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model that was trained: there is no other kind. It is a `CatalogueScorer`.

    Its weights do not change; what was made of them is kept, for the next call.

    Args:
        network: The weights, on some device.
        config: What it is and how it was trained.
        items: ``[n_items]`` item ids.
        titles: ``[n_items]`` titles, where known.
        popularity: ``[n_items]`` int64 training users of each item.
        provenance: Data set fingerprint, the run it comes from (see
            `coterie.training.run_record.RunIdentity`) and training summary. JSON values only.

    Example:
        >>> from coterie.simulation.service import simulate_dataset
        >>> from coterie.training.trainer import train
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> model = train(data, RunConfig.of({"model": {"name": "ease"}}))
        >>> model.score(data.train[:2]).shape == (2, model.n_items)
        True
        >>> [one.rank for one in model.recommend({"ann": [1, 2, 3]}, k=2).for_user("ann")]
        [1, 2]
    """

    network: Network
    config: RunConfig
    items: IdMap
    titles: tuple[str | None, ...] | None
    popularity: np.ndarray
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, length in (
            ("ids", len(self.items)),
            ("popularity", len(self.popularity)),
            ("titles", len(self.titles or self.items)),
        ):
            if length != self.network.n_items:
                raise DataError(
                    f"{what} must have one entry for each of the network's {self.network.n_items}"
                    f" items, found {length}."
                )

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return self.network.n_items

    @property
    def is_refit(self) -> bool:
        """Whether it was trained on everybody in its data set, held-out users included."""
        return bool(self.provenance.get("refit"))

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self._first_weight.device

    @cached_property
    def _first_weight(self) -> Tensor:
        # Kept, as finding it walks through the whole network.
        return next(chain(self.network.parameters(), self.network.buffers()))

    def score(self, histories: csr_array) -> Tensor:
        """Scores ``[n, n_items]`` binary histories: ``[n, n_items]`` float32 on the model's
        device.
        """
        with torch.no_grad():
            return self.network.score(SparseRows.from_csr(histories, self.device))

    def score_items(self, histories: csr_array, items: np.ndarray) -> Tensor:
        """Scores of the items at ``[m]`` int64 indices alone: ``[n, m]`` float32 on the model's
        device, up to rounding those columns of `score`.
        """
        rows = SparseRows.from_csr(histories, self.device)
        with torch.no_grad():
            return self.network.score_items(rows, torch.from_numpy(items).to(self.device))

    def user_factors(self, histories: csr_array) -> Tensor:
        """``[n, dim]`` of ``[n, n_items]`` binary histories: times the item factors they are the
        scores.

        Raises:
            ConfigError: if the model's last step is no inner product of few dimensions.
        """
        network = self._with_factors()
        with torch.no_grad():
            factors: Tensor = network.user_factors(SparseRows.from_csr(histories, self.device))
        return factors

    def item_factors(self) -> Tensor:
        """``[n_items, dim]``, one tensor for all who hold it at the same time; not to be written
        to.

        Raises:
            ConfigError: if the model's last step is no inner product of few dimensions.
        """
        held: weakref.ref[Tensor] | None = self.__dict__.get("_item_factors")
        factors = None if held is None else held()
        if factors is None:
            factors = self._with_factors().item_factors().detach()
            self.__dict__["_item_factors"] = weakref.ref(factors)
        return factors

    @property
    def has_factors(self) -> bool:
        """Whether scores are inner products of `user_factors` and `item_factors`."""
        return self._inner_product is not None

    @cached_property
    def _inner_product(self) -> InnerProduct | None:
        # Kept, as it takes long to tell.
        return self.network if isinstance(self.network, InnerProduct) else None

    def _with_factors(self) -> InnerProduct:
        if self._inner_product is None:
            raise ConfigError(
                f"factors need scores that are inner products, {self.config.model.name} has none;"
                " train mult-vae."
            )
        return self._inner_product

    def encode(self, histories: csr_array) -> tuple[Tensor, Tensor]:
        """Posterior mean and log-variance of ``[n, n_items]`` clean histories, each ``[n,
        latent_dim]``.

        Raises:
            ConfigError: if the model is no variational autoencoder.
        """
        if not isinstance(self.network, Variational):
            raise ConfigError(
                f"a posterior needs a variational autoencoder, this is {self.config.model.name};"
                " train mult-vae."
            )
        with torch.no_grad():
            return self.network.posterior(SparseRows.from_csr(histories, self.device))

    def item_vectors(self) -> Tensor:
        """``[n_items, dim]`` learned item representations."""
        return self.network.item_vectors()

    def recommend(
        self,
        histories: Histories | UserItems,
        options: RankingOptions | int = 10,
        *,
        progress: Progress = silent,
        **fields: Unpack[RankingFields],
    ) -> Recommendations:
        """The best items for every user, as `coterie.ranking.engine.recommend` ranks them.

        Args:
            histories: Item ids by user id, or `Histories`; users need not have been in training.
            options: Which items, how many and how; a number is ``k``.
            progress: Called after each block of users.
            fields: Single fields of `RankingOptions`, laid over ``options``: ``k``,
                ``exclude_seen``, ``allow``, ``deny``, ``index``, ``block_size``.
        """
        return self.recommender(options, **fields).recommend(histories, progress)

    def recommender(
        self, options: RankingOptions | int = 10, **fields: Unpack[RankingFields]
    ) -> Recommender:
        """The long-lived ranking object of these options; the last four made are kept for another
        call.

        Args:
            options: As in `recommend`.
            fields: As in `recommend`.
        """
        given, kept = RankingOptions.of(options, **fields), self._recommenders
        # Each step is atomic: threads that want the same at once make it twice at worst.
        found = kept.get(given)
        if found is None:
            found = kept.setdefault(given, Recommender(self, given))
            for oldest in list(kept)[:-_KEPT]:
                kept.pop(oldest, None)
        return found

    @cached_property
    def _recommenders(self) -> dict[RankingOptions, Recommender]:
        return {}

    @cached_property
    def identity(self) -> ModelIdentity:
        """Name, run and fingerprint: over configuration, ids, popularity and weights."""
        parts = {
            "schema": SCHEMA,
            "model": json.dumps(self.config.as_json()["model"], sort_keys=True),
            "popularity": np.asarray(self.popularity, dtype=np.int64),
            **{f"network.{name}": w for name, w in self.network.state_dict().items()},
        }
        return ModelIdentity(
            self.config.model.name,
            fingerprint(self.items.values.to_pylist(), parts.items()),
            self.provenance.get("run_id"),
        )

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 over all that changes a score, an id or the fall-back."""
        return self.identity.fingerprint

    def similar_items(self, item_id: Id, k: int = 10) -> list[SimilarItem]:
        """The k items closest to one, by the cosine of their learned representations.

        Raises:
            ConfigError: if the model learns no item representation.
            DataError: if the model has never seen the item.
        """
        return similar_items(self, item_id, k)

    def explain(self, history: Iterable[Id], items: Id | Iterable[Id], k: int = 10) -> Explanation:
        """How much each item of a history raised one item's score, or several items', as
        `coterie.ranking.explanation.explain` leaves them out in turn.

        Args:
            history: Item ids; unknown ones are reported and ignored.
            items: The id of one item of the catalogue, or several.
            k: How many items of the history to name for each, those that raised it most.

        Raises:
            DataError: if an item asked for is unknown to the model.
            NumericalError: if a score is not finite.
        """
        return explain(self, history, items, k)

    def to(self, device: torch.device | str) -> "TrainedModel":
        """The same model with its weights moved to ``device``."""
        self.network.to(device)
        for name in ("_recommenders", "_item_factors", "_first_weight"):
            self.__dict__.pop(name, None)
        return self

    def __getstate__(self) -> dict[str, Any]:
        # What was made of the weights since is made anew by a copy.
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def save(self, folder: str | Path) -> None:
        """Writes the artifact, whole or not at all; an older one there is replaced."""
        with publish_folder(folder) as aside:
            save_file(
                {name: w.cpu().contiguous() for name, w in self.network.state_dict().items()},
                aside / "weights.safetensors",
            )
            columns = {
                "item_id": self.items.values,
                "popularity": pa.array(self.popularity, pa.int64()),
            }
            if self.titles is not None:
                columns["title"] = pa.array(self.titles, pa.string())
            pq.write_table(pa.table(columns), aside / "items.parquet")
            written_by = {"coterie": coterie.__version__, "torch": torch.__version__}
            write_manifest(
                aside,
                SCHEMA,
                fingerprint=self.fingerprint,
                config=self.config.as_json(),
                written_by=written_by,
                provenance=dict(self.provenance),
            )

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> "TrainedModel":
        """Reads an artifact, or the one in a run folder, and checks schema, checksums and shapes.

        Raises:
            ArtifactError: if it is missing, damaged, or of another schema version.
        """
        folder = model_folder(folder)
        manifest = read_model_manifest(folder)
        try:
            items = pq.read_table(folder / "items.parquet")
            network = manifest.config.model.empty(items.num_rows)
            network.load_state_dict(load_file(folder / "weights.safetensors"))
            titles = tuple(items["title"].to_pylist()) if "title" in items.column_names else None
            popularity = items["popularity"].to_numpy()
            return cls(
                network.to(device).eval(),
                manifest.config,
                IdMap.of(items["item_id"]),
                titles,
                popularity,
                manifest.provenance,
            )
        except (
            KeyError,
            OSError,
            RuntimeError,
            SafetensorError,
            pa.ArrowException,
            DataError,
        ) as error:
            raise ArtifactError(
                f"{folder}: not a whole model ({error}); restore it or train anew."
            ) from error
