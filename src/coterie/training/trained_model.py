"""The trained model: a scorer with its vocabulary, and the self-contained artifact it is saved as.

The artifact is a folder of plain files: ``weights.safetensors`` (no anchors: serving needs none),
``items.parquet`` (ids, titles, popularity) and ``manifest.json`` (schema, configuration,
checksums). Nothing in it is unpickled, and no training data is needed to load it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from coterie.files import publish_folder, read_manifest, recover, write_manifest
from coterie.fingerprints import fingerprint_of
from coterie.models.autoencoder import Autoencoder
from coterie.models.ials import Ials
from coterie.models.multvae import MultVAE
from coterie.models.recvae import RecVAE
from coterie.recommend.engine import recommend
from coterie.recommend.histories import Histories, UserItems
from coterie.recommend.recommendations import Recommendations
from coterie.recommend.similar import SimilarItem, similar_items
from coterie.sparse import SparseRows
from coterie.training.networks import Network, empty_network
from coterie.training.run_record import MODEL_SCHEMA

SCHEMA = MODEL_SCHEMA


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model that was trained: there is no other kind. It is a `Scorer` and a `Recommender`.

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
    def fingerprint(self) -> str:
        """Hex SHA-256 over all that changes a score or a list: the model's configuration, ids,
        popularity and weights. Models trained alike have the same one.
        """
        ids = [str(self.items.values.type), *self.items.values.to_pylist()]
        parts: list[tuple[str, bytes | memoryview]] = [
            ("model", json.dumps(self.config.as_json()["model"], sort_keys=True).encode()),
            ("items", json.dumps(ids).encode()),
            ("popularity", np.ascontiguousarray(self.popularity, dtype=np.int64).data),
        ]
        for name, weights in sorted(self.network.state_dict().items()):
            # As bytes already here, because NumPy does not know every type of a tensor.
            content = weights.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            parts.append((f"{name} {weights.dtype} {tuple(weights.shape)}", content.data))
        return fingerprint_of(parts)

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        device: torch.device = next(iter(self.network.state_dict().values())).device
        return device

    def score(self, histories: csr_array) -> Tensor:
        """Scores ``[n, n_items]`` binary histories: ``[n, n_items]`` float32 on the model's
        device.
        """
        with torch.no_grad():
            return self.network.score(SparseRows.from_csr(histories, self.device))

    def user_factors(self, histories: csr_array) -> Tensor:
        """``[n, dim]`` of ``[n, n_items]`` binary histories: times the item factors they are the
        scores.

        Raises:
            ConfigError: if the model's last step is no inner product of few dimensions.
        """
        if not isinstance(self.network, Autoencoder | Ials) or self.network.item_factors() is None:
            raise ConfigError(
                f"user factors need scores that are inner products, {self.config.model.name} has"
                " none; train mult-vae."
            )
        with torch.no_grad():
            return self.network.user_factors(SparseRows.from_csr(histories, self.device))

    def item_factors(self) -> Tensor | None:
        """``[n_items, dim]``, or None if the model's last step is no inner product of few
        dimensions.
        """
        factors = (
            self.network.item_factors() if isinstance(self.network, Autoencoder | Ials) else None
        )
        return None if factors is None else factors.detach()

    def encode(self, histories: csr_array) -> tuple[Tensor, Tensor]:
        """Posterior mean and log-variance of ``[n, n_items]`` clean histories, each ``[n,
        latent_dim]``.

        Raises:
            ConfigError: if the model is no variational autoencoder.
        """
        if not isinstance(self.network, MultVAE | RecVAE):
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
        self, histories: Histories | UserItems, k: int = 10, **options: Any
    ) -> Recommendations:
        """The k best items for every user; options as in `coterie.recommend.engine.recommend`.

        Args:
            histories: Item ids by user id, or `Histories`; users need not have been in training.
            k: Length of each list.
            options: ``exclude_seen``, ``allow``, ``deny``, ``block_size``, ``progress``.
        """
        return recommend(self, histories, k, **options)

    def similar_items(self, item_id: Id, k: int = 10) -> list[SimilarItem]:
        """The k items closest to one, by the cosine of their learned representations.

        Raises:
            ConfigError: if the model learns no item representation.
            DataError: if the model has never seen the item.
        """
        return similar_items(self, item_id, k)

    def to(self, device: torch.device | str) -> "TrainedModel":
        """The same model with its weights moved to ``device``."""
        self.network.to(device)
        return self

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
        # A link is followed once, so that all files are of one version.
        folder = Path(folder).resolve()
        recover(folder / "model")
        folder = folder / "model" if (folder / "model").is_dir() else folder
        manifest = read_manifest(folder, SCHEMA)
        try:
            config = RunConfig.of(manifest["config"])
            items = pq.read_table(folder / "items.parquet")
            network = empty_network(items.num_rows, config.model)
            network.load_state_dict(load_file(folder / "weights.safetensors"))
            titles = tuple(items["title"].to_pylist()) if "title" in items.column_names else None
            popularity = items["popularity"].to_numpy()
            return cls(
                network.to(device).eval(),
                config,
                IdMap.of(items["item_id"]),
                titles,
                popularity,
                manifest["provenance"],
            )
        except (
            KeyError,
            OSError,
            RuntimeError,
            SafetensorError,
            pa.ArrowException,
            ConfigError,
            DataError,
        ) as error:
            raise ArtifactError(
                f"{folder}: not a whole model ({error}); restore it or train anew."
            ) from error
