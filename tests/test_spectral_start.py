"""The spectral start against a dense decomposition, and the average of weights against a plain
loop.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from torch import nn

from coterie.config import RunConfig, TrainingConfig
from coterie.errors import ConfigError
from coterie.evaluation.evaluate import evaluate
from coterie.models.kinds import SteppedConfig
from coterie.models.multdae import MultDAEConfig
from coterie.models.multvae import MultVAEConfig
from coterie.models.popularity import PopularityConfig
from coterie.models.recvae import RecVAEConfig
from coterie.models.vamp_vae import VampVAEConfig
from coterie.networks.autoencoder import Autoencoder
from coterie.networks.spectral_start import start_spectrally
from coterie.objectives.likelihood import multinomial_nll
from coterie.running.execution import Execution
from coterie.running.progress import Update
from coterie.simulation.service import simulate_dataset
from coterie.training.average import WeightAverage
from coterie.training.run_record import read_history
from coterie.training.step import TrainingStep
from coterie.training.trainer import train
from test_sparse import DEVICES, random_dense, sparse
from test_training import DATA, QUICK_DAE, QUICK_REC, QUICK_VAE, config, same_weights

N_ITEMS, RANK = 30, 3
SMALL: dict[str, SteppedConfig] = {
    "no hidden layer": MultVAEConfig(hidden_dims=(), latent_dim=4),
    "one": MultVAEConfig(hidden_dims=(9,), latent_dim=4),
    "two": MultVAEConfig(hidden_dims=(9, 7), latent_dim=4),
    "mult-dae": MultDAEConfig(hidden_dims=(9,), latent_dim=4),
    "gated": VampVAEConfig(hidden_dims=(9, 7), latent_dim=4, gated=True, components=2),
}
BENDS = {"no hidden layer": 0, "one": 2, "two": 4, "mult-dae": 3, "gated": 0}
"""Activations, each a tanh, that a dimension goes through."""


def started(model: SteppedConfig, dense: np.ndarray, rank: int = RANK) -> Autoencoder:
    network = model.build(dense.shape[1], torch.Generator().manual_seed(1))
    start_spectrally(network, csr_array(dense), rank)
    return network


def leading_vectors(dense: np.ndarray, rank: int) -> np.ndarray:
    """``[n_items, rank]`` by the whole decomposition."""
    degrees = np.outer(dense.sum(axis=1), dense.sum(axis=0))
    matrix = np.divide(dense, np.sqrt(degrees), where=dense > 0, out=np.zeros(dense.shape))
    vectors: np.ndarray = np.linalg.svd(matrix, full_matrices=False)[2].T[:, :rank]
    return vectors


@pytest.mark.parametrize("name", list(SMALL))
def test_first_scores_are_those_of_the_decomposition(name: str) -> None:
    dense = random_dense(40, N_ITEMS, seed=3).astype(float)
    network = started(SMALL[name], dense)
    vectors, n_i = leading_vectors(dense, RANK), dense.sum(axis=0)
    n_u = np.maximum(dense.sum(axis=1), 1)
    hidden = (dense / np.sqrt(n_u)[:, None]) @ (vectors / np.sqrt(np.maximum(n_i, 1))[:, None])
    hidden /= hidden.std(axis=0).max()
    for _ in range(BENDS[name]):
        hidden = np.tanh(hidden)
    scale = np.abs(network.output.weight.detach().numpy()).max() / np.abs(vectors).max()
    expected = np.log((n_i + 1) / (n_i + 1).sum()) + scale * hidden @ vectors.T
    found = network.score(sparse(dense > 0)).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("name", [*SMALL, "recvae"])
def test_scale_of_the_last_layer_is_the_likeliest(name: str) -> None:
    model = SMALL.get(name, RecVAEConfig(hidden_dim=12, latent_dim=4))
    dense = random_dense(40, N_ITEMS, seed=3)
    network, rows = started(model, dense.astype(float)), sparse(dense)
    weight, hidden = network.output.weight, network.decode_hidden(network.point(rows))
    at, below, above = (
        multinomial_nll(hidden, scale * weight, network.output.bias, rows).sum().item()
        for scale in (1.0, 0.95, 1.05)
    )
    assert at < min(below, above)


def test_recvae_turns_no_dimension_round() -> None:
    dense = random_dense(40, N_ITEMS, seed=3)[1:]
    model = RecVAEConfig(hidden_dim=60, latent_dim=8)
    network = model.build(N_ITEMS, torch.Generator().manual_seed(1))
    first = np.random.default_rng(2).standard_normal((N_ITEMS, RANK)).astype(np.float32)
    network.carry(torch.from_numpy(first))
    code = network.encode(sparse(dense))[:, :RANK].detach().numpy()
    hidden = dense / np.sqrt(dense.sum(axis=1, keepdims=True)) @ first
    # Swish and the norms bend what they carry.
    for dimension in range(RANK):
        assert np.corrcoef(hidden[:, dimension], code[:, dimension])[0, 1] > 0.8


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 13), st.integers(0, 10_000), st.sampled_from([*SMALL]),
    st.integers(1, 20),
)  # fmt: skip
def test_any_matrix_and_rank_start_finite(
    n_users: int, n_items: int, seed: int, name: str, rank: int
) -> None:
    dense = random_dense(n_users, n_items, seed)
    network = started(SMALL[name], dense.astype(float), rank)
    assert all(value.isfinite().all() for value in network.state_dict().values())


def test_nobody_who_likes_anything_starts_as_nothing_but_popularity() -> None:
    network = started(SMALL["one"], np.zeros((3, 5)))
    scores = network.score(sparse(np.zeros((1, 5), bool)))
    assert torch.equal(scores, scores[:, :1].expand(1, 5))


PLANTED = simulate_dataset(n_users=700, n_items=120, held_out_users=100, seed=5)
STARTED = {"start": "spectral", "start_rank": 5, "average": 0.2}
MODELS = {"vae": QUICK_VAE, "dae": QUICK_DAE, "recvae": {**QUICK_REC, "hidden_dim": 40}}


@pytest.mark.parametrize("name", list(MODELS))
def test_before_any_step_it_ranks_better_than_popularity(name: str) -> None:
    asked = RunConfig.of({"model": MODELS[name], "training": STARTED})
    assert isinstance(asked.model, SteppedConfig)
    step = TrainingStep(PLANTED.n_items, asked.model, asked.training, train=PLANTED.train)
    popular = train(PLANTED, PopularityConfig())
    values = [
        evaluate(scorer, PLANTED, "test", metrics=["ndcg@20"]).mean("ndcg@20")
        for scorer in (step, popular)
    ]
    assert values[0] > 1.1 * values[1]


@pytest.mark.parametrize("device", DEVICES)
def test_every_device_starts_from_the_same_weights(device: str) -> None:
    one, other = (
        TrainingStep(
            DATA.n_items,
            MultVAEConfig(hidden_dims=(9,), latent_dim=4),
            TrainingConfig(start="spectral"),
            Execution(where),
            DATA.train,
        ).network.state_dict()
        for where in (device, "cpu")
    )
    assert all(torch.equal(value.cpu(), other[name]) for name, value in one.items())


@pytest.mark.parametrize("name", list(MODELS))
def test_a_run_that_stops_goes_on_to_the_same_bits(name: str, tmp_path: Path) -> None:
    asked = config(MODELS[name], epochs=4, **STARTED)
    whole = train(DATA, asked)

    def leave(update: Update) -> None:
        if update.facts.get("epoch") == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(DATA, asked, out=tmp_path, progress=leave, checkpoint_seconds=0)
    assert same_weights(train(DATA, asked, out=tmp_path, resume=True), whole)
    assert not same_weights(train(DATA, config(MODELS[name], epochs=4)), whole)


def test_average_is_the_plain_loop() -> None:
    weight, rng = nn.Parameter(torch.zeros(3)), np.random.default_rng(1)
    average, expected = WeightAverage({"weight": weight}, share=0.2), np.zeros(3)
    for n_steps in range(1, 40):
        values = rng.standard_normal(3).astype(np.float32)
        weight.data.copy_(torch.from_numpy(values))
        average.update(n_steps)
        newest = 1 / (1 + 0.2 * n_steps)
        expected = (1 - newest) * expected + newest * values
    with average.in_place():
        np.testing.assert_allclose(weight.detach(), expected, rtol=1e-5)
    np.testing.assert_array_equal(weight.detach(), values)


def test_the_average_is_what_is_validated_and_kept(tmp_path: Path) -> None:
    asked = config(QUICK_VAE, epochs=3, average=0.2)
    model = train(DATA, asked, out=tmp_path)
    validated = read_history(tmp_path)[model.provenance["best_epoch"] - 1]["validation"]["ndcg@10"]
    assert evaluate(model, DATA, "validation", metrics=["ndcg@10"]).mean("ndcg@10") == validated
    assert not same_weights(model, train(DATA, config(QUICK_VAE, epochs=3)))


def test_average_and_sparse_updates_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="average must be 0 with sparse_updates"):
        TrainingConfig(average=0.2, sparse_updates=True)
