"""The learned prior against a loop over its components, the gates against two dense layers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp
from torch import Tensor

from coterie.config import RunConfig, TrainingConfig
from coterie.models.vamp_vae import VampVAEConfig
from coterie.networks.vamp_prior import VampPrior, draw_pseudo_inputs
from coterie.objectives.divergence import gaussian_kl, mixture_log_density
from coterie.simulation.service import simulate_dataset
from coterie.training.step import TrainingStep
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train
from scorer_contract import check_recommender, check_scorer, random_histories
from test_sparse import random_dense, sparse

DATA = simulate_dataset(n_users=260, n_items=50, held_out_users=40, seed=2)
VALUES: dict[str, Any] = {
    "model": {
        "name": "vamp-vae",
        "hidden_dims": [12],
        "latent_dim": 6,
        "components": 5,
        "anneal_steps": 4,
    },
    "training": {"epochs": 3, "batch_size": 60, "learning_rate": 0.01, "metric": "ndcg@10"},
}


def small(**fields: Any) -> VampVAEConfig:
    return VampVAEConfig(**{"hidden_dims": (7,), "latent_dim": 3, "components": 4, **fields})


def normals(n: int, dim: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, dim)))


# The mixture.


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(1, 5), st.integers(0, 999))
def test_density_is_the_mixture_of_scipys_normals(n: int, k: int, dim: int, seed: int) -> None:
    z, mu, logvar = (normals(rows, dim, seed + i) for i, rows in enumerate((n, k, k)))
    found = mixture_log_density(z, mu, 2 * logvar)
    for point, value in zip(z.numpy(), found.tolist(), strict=True):
        of_components = [
            stats.norm.logpdf(point, m, np.exp(v)).sum()
            for m, v in zip(mu.numpy(), logvar.numpy(), strict=True)
        ]
        assert value == pytest.approx(logsumexp(of_components) - np.log(k), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("logvar", [-20.0, -8.0, 0.0, 12.0])
@pytest.mark.parametrize("distance", [0.0, 1.0, 300.0])
def test_density_keeps_float32s_digits_for_narrow_and_wide_components(
    logvar: float, distance: float
) -> None:
    mu = torch.full((2, 4), 50.0)
    z = mu[:1] + distance * np.exp(logvar / 2)
    found = mixture_log_density(z, mu, torch.full((2, 4), logvar))
    exact = stats.norm.logpdf(z.double().numpy(), 50.0, np.exp(logvar / 2)).sum()
    assert found.dtype == torch.float32
    # Squares of 50 against a variance of 2e-9 leave six digits of float64.
    assert found.item() == pytest.approx(exact, rel=1e-6, abs=1e-3)


def test_density_and_its_divergence_have_the_numerical_gradient() -> None:
    config = small(gated=True)
    network = config.build(9, torch.Generator().manual_seed(1)).double()
    prior = VampPrior(draw_pseudo_inputs(4, 9, torch.Generator().manual_seed(2)).double(), 1.0, 0)
    rows = sparse(random_dense(5, 9, 3))
    z, mu, logvar = (normals(5, 3, seed).requires_grad_() for seed in range(3))

    def divergence(z: Tensor, mu: Tensor, logvar: Tensor, pseudo_inputs: Tensor) -> Tensor:
        given = torch.func.functional_call(
            _Divergence(prior, network), {"prior.pseudo_inputs": pseudo_inputs}, (z, mu, logvar)
        )
        assert isinstance(given, Tensor)
        return given

    class _Divergence(torch.nn.Module):
        def __init__(self, prior: VampPrior, network: torch.nn.Module) -> None:
            super().__init__()
            self.prior, self.network = prior, network

        def forward(self, z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
            return self.prior.divergence(network, z, mu, logvar, rows)

    inputs = prior.pseudo_inputs.detach().clone().requires_grad_()
    # Only the code is float32: the mixture and its gradient are held to the tighter bound.
    assert torch.autograd.gradcheck(
        divergence, (z, mu, logvar, inputs), eps=1e-3, atol=2e-3, rtol=2e-2
    )
    means, logvars = (normals(4, 3, seed).requires_grad_() for seed in (7, 8))
    assert torch.autograd.gradcheck(mixture_log_density, (z, means, logvars))


def test_one_standard_component_is_the_standard_normal() -> None:
    """Pseudo-inputs that are encoded to N(0, I) leave Mult-VAE's prior."""
    config = small(components=1)
    network = config.build(9, torch.Generator().manual_seed(1))
    for value in network.parameters():
        value.data.zero_()
    prior = VampPrior(torch.zeros(1, 9), 1.0, 0)
    generator = torch.Generator().manual_seed(0)
    mu, logvar = torch.tensor([[0.7, -0.2, 0.1]]), torch.tensor([[0.3, -1.0, 0.0]])
    many = 100_000
    z = mu + (logvar / 2).exp() * torch.randn(many, 3, generator=generator)
    with torch.no_grad():
        draws = prior.divergence(network, z, mu, logvar, sparse(np.zeros((1, 9))))
    assert float(draws.mean()) == pytest.approx(
        gaussian_kl(mu, logvar).item(), abs=5 * float(draws.std()) / many**0.5
    )


def test_components_are_posteriors_of_clipped_and_normalised_inputs() -> None:
    network = small().build(9, torch.Generator().manual_seed(1))
    histories = random_dense(4, 9, 5)
    histories[0] = 0
    # Far beyond 0 and 1: what is clipped is a history, which the encoder reads itself.
    prior = VampPrior(torch.from_numpy(histories * 7 - 3).float(), 1.0, 0)
    mu, logvar = network.posterior(sparse(histories))
    z = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    found = prior.divergence(network, z, torch.zeros(6, 3), torch.zeros(6, 3), sparse(histories))
    expected = stats.norm.logpdf(z.numpy()).sum(axis=1) - mixture_log_density(z, mu, logvar).numpy(
        force=True
    )
    np.testing.assert_allclose(found.numpy(force=True), expected, rtol=1e-4, atol=1e-5)


# The gates.


@pytest.mark.parametrize("hidden_dims", [(), (7,), (7, 5)])
def test_gated_layers_are_one_dense_layer_times_the_sigmoid_of_another(
    hidden_dims: tuple[int, ...],
) -> None:
    network = small(gated=True, hidden_dims=hidden_dims).build(9, torch.Generator().manual_seed(1))
    w = network.double().state_dict()
    x = torch.from_numpy(random_dense(6, 9, 2)).double()

    def gated(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        half = len(bias) // 2
        value, gate = h @ weight[:half].t() + bias[:half], h @ weight[half:].t() + bias[half:]
        return value * torch.sigmoid(gate)

    def dense(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return h @ weight.t() + bias

    n = len(hidden_dims)
    encoder = [(w["input.weight"].t(), w["input.bias"])]
    encoder += [(w[f"encoder.{i}.weight"], w[f"encoder.{i}.bias"]) for i in range(n)]
    h = x / x.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1e-30)
    for layer in encoder[:-1]:
        h = gated(h, *layer)
    mu = dense(h, *encoder[-1])[:, :3]
    h = mu
    for i in range(n):
        h = gated(h, w[f"decoder.{i}.weight"], w[f"decoder.{i}.bias"])
    scores = dense(h, w["output.weight"], w["output.bias"])
    torch.testing.assert_close(network.score(sparse(x.numpy())), scores, rtol=1e-6, atol=1e-7)


# In the step and as a model.


def test_the_prior_learns_and_its_weight_rises_and_stays() -> None:
    step = TrainingStep(30, small(anneal_steps=4, beta=0.4), TrainingConfig(learning_rate=0.01))
    rows = sparse(random_dense(8, 30, 5))
    assert isinstance(step.prior, VampPrior)
    before = step.prior.pseudo_inputs.detach().clone()
    for number in range(7):
        beta = 0.4 * min(number / 4, 1)
        assert step.schedule() == {"beta": pytest.approx(beta)}
        terms = step(rows)
        expected = float(terms["nll"]) + beta * float(terms["kl"])
        assert float(terms["loss"]) == pytest.approx(expected, rel=1e-5)
    assert not torch.equal(step.prior.pseudo_inputs, before)


def test_weight_decay_leaves_pseudo_inputs_alone() -> None:
    training = TrainingConfig(weight_decay=1e6, learning_rate=1e-3)
    step = TrainingStep(30, small(anneal_steps=100), training)
    assert isinstance(step.prior, VampPrior)
    before = step.prior.pseudo_inputs.detach().clone()
    # At β = 0 they have no gradient.
    step(sparse(random_dense(8, 30, 5)))
    assert torch.equal(step.prior.pseudo_inputs, before)


def test_an_empty_history_stays_finite() -> None:
    step, x = TrainingStep(30, small()), np.zeros((3, 30))
    for _ in range(3):
        assert all(value.isfinite() for value in step(sparse(x)).values())
    assert all(value.isfinite().all() for value in step.state().values())


@pytest.mark.parametrize("gated", [False, True])
def test_it_keeps_the_scorers_contract_and_leaves_its_prior_behind(
    gated: bool, tmp_path: Path
) -> None:
    values = {**VALUES, "model": {**VALUES["model"], "gated": gated, "pia": 0.1}}
    model = train(DATA, RunConfig.of(values))
    check_scorer(model, random_histories(9, model.n_items, seed=1))
    check_recommender(model)
    model.save(tmp_path / "model")
    loaded = TrainedModel.load(tmp_path / "model")
    histories = random_histories(9, model.n_items, seed=2)
    assert torch.equal(loaded.score(histories), model.score(histories))
    assert not any("pseudo" in name for name in loaded.network.state_dict())
    factors = loaded.item_factors()
    assert factors is not None
    torch.testing.assert_close(
        loaded.user_factors(histories) @ factors.t(), loaded.score(histories)
    )
