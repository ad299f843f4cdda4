"""RecVAE against the formulas of its authors, written here a second time on dense rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from torch import Tensor
from torch.nn import functional

from coterie.config import RunConfig, TrainingConfig
from coterie.models.recvae import RecVAEConfig
from coterie.networks.autoencoder import Autoencoder, input_scale
from coterie.networks.recvae import RecVAE
from coterie.objectives.divergence import (
    composite_log_density,
    gaussian_kl,
    gaussian_log_density,
    sampled_kl,
)
from coterie.running.execution import Execution
from coterie.simulation.service import simulate_dataset
from coterie.sparse import SparseRows
from coterie.training.loop import TrainingLoop
from coterie.training.run_record import read_history
from coterie.training.step import TrainingStep
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train
from scorer_contract import check_recommender, check_scorer, random_histories
from test_sparse import random_dense, sparse

DATA = simulate_dataset(n_users=260, n_items=50, held_out_users=40, seed=2)
SMALL = RecVAEConfig(hidden_dim=9, latent_dim=4)
VALUES: dict[str, Any] = {
    "model": {"name": "recvae", "hidden_dim": 12, "latent_dim": 6, "encoder_epochs": 2, "pia": 0.2},
    "training": {"epochs": 3, "batch_size": 60, "learning_rate": 0.005, "metric": "ndcg@10"},
}


def recvae(n_items: int = 30, config: RecVAEConfig = SMALL, seed: int = 0) -> RecVAE:
    return config.build(n_items, torch.Generator().manual_seed(seed))


def memory_of(step: TrainingStep) -> dict[str, Tensor]:
    """The encoder that the prior remembers."""
    assert step.prior is not None
    return step.prior.memory()


def dense_posterior(network: RecVAE, x: Tensor) -> tuple[Tensor, Tensor]:
    """Five layers, each with all outputs before it added, swish, then layer norm with 0.1; as
    published.
    """
    w = network.state_dict()

    def swish_norm(number: int, h: Tensor) -> Tensor:
        h = h * torch.sigmoid(h)
        centred = h - h.mean(dim=1, keepdim=True)
        variance = centred.square().mean(dim=1, keepdim=True)
        normed: Tensor = (
            centred / (variance + 0.1).sqrt() * w[f"norms.{number}.weight"]
            + w[f"norms.{number}.bias"]
        )
        return normed

    def dense(number: int, h: Tensor) -> Tensor:
        product: Tensor = h @ w[f"encoder.{number}.weight"].t() + w[f"encoder.{number}.bias"]
        return product

    norm = x.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1e-10)
    h1 = swish_norm(0, x / norm @ w["input.weight"] + w["input.bias"])
    h2 = swish_norm(1, dense(0, h1) + h1)
    h3 = swish_norm(2, dense(1, h2) + h1 + h2)
    h4 = swish_norm(3, dense(2, h3) + h1 + h2 + h3)
    h5 = swish_norm(4, dense(3, h4) + h1 + h2 + h3 + h4)
    code = h5 @ w["code.weight"].t() + w["code.bias"]
    return code[:, : code.shape[1] // 2], code[:, code.shape[1] // 2 :]


# The network.


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 40),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(0, 999),
)
def test_posterior_is_the_published_encoders(
    n_users: int, n_items: int, width: int, latent_dim: int, seed: int
) -> None:
    network = recvae(n_items, RecVAEConfig(hidden_dim=width, latent_dim=latent_dim), seed)
    for value in network.norms.parameters():
        value.data.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(seed))
    x = random_dense(n_users, n_items, seed)
    with torch.no_grad():
        for found, expected in zip(
            network.posterior(sparse(x)),
            dense_posterior(network, torch.tensor(x).float()),
            strict=True,
        ):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_decoder_is_linear() -> None:
    network, x = recvae(), random_dense(6, 30, 1)
    with torch.no_grad():
        mu, _ = dense_posterior(network, torch.tensor(x).float())
        torch.testing.assert_close(
            network.score(sparse(x)),
            mu @ network.output.weight.t() + network.output.bias,
            rtol=1e-4,
            atol=1e-5,
        )


def test_default_recvae_is_the_papers() -> None:
    shapes = [
        tuple(value.shape)
        for name, value in recvae(1000, RecVAEConfig()).named_parameters()
        if name.endswith("weight")
    ]
    assert shapes == [(1000, 600), (1000, 200), *[(600, 600)] * 4, (400, 600), *[(600,)] * 5]
    assert RecVAEConfig().passes == ("encoder", "encoder", "encoder", "decoder")


def test_initial_weights_are_uniform_by_the_width_of_their_input() -> None:
    for name, value in recvae(1000, RecVAEConfig()).named_parameters():
        if name.startswith("norms"):
            assert (value == (1 if name.endswith("weight") else 0)).all()
            continue
        bound = {"input": 1000, "output": 200}.get(name.split(".")[0], 600) ** -0.5
        assert value.detach().abs().max() <= bound
        assert float(value.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.1), name


def test_recvae_keeps_the_scorers_contract_and_survives_an_empty_history(tmp_path: Path) -> None:
    model = train(DATA, RunConfig.of(VALUES))
    check_scorer(model, random_histories(9, model.n_items, seed=1))
    check_recommender(model)
    model.save(tmp_path / "model")
    loaded = TrainedModel.load(tmp_path / "model")
    histories = random_histories(9, model.n_items, seed=2)
    assert torch.equal(loaded.score(histories), model.score(histories))
    assert all(part.isfinite().all() for part in model.encode(histories))


# The composite prior.


@settings(max_examples=50, deadline=None)
@given(st.floats(-300, 300), st.floats(-20, 20), st.floats(-8, 8))
def test_composite_density_is_the_mixture_of_scipys_normals(
    z: float, mu: float, logvar: float
) -> None:
    of_mixture = stats.Mixture if hasattr(stats, "Mixture") else None
    assert of_mixture is not None
    laws = [
        stats.Normal(mu=0.0, sigma=1.0),
        stats.Normal(mu=mu, sigma=float(np.exp(logvar / 2))),
        stats.Normal(mu=0.0, sigma=float(np.exp(5))),
    ]
    expected = of_mixture(laws, weights=[3 / 20, 3 / 4, 1 / 10]).logpdf(z)
    found = composite_log_density(
        *(torch.tensor(value, dtype=torch.float64) for value in (z, mu, logvar))
    )
    assert found.item() == pytest.approx(float(expected), rel=1e-9, abs=1e-9)


def test_composite_density_integrates_to_one() -> None:
    def density(z: float) -> float:
        parts = (torch.tensor(value, dtype=torch.float64) for value in (z, 3.0, -1.0))
        return float(composite_log_density(*parts).exp())

    total, _ = integrate.quad(density, -2000, 2000, points=[0, 3], limit=500)
    assert total == pytest.approx(1, abs=1e-6)


def test_composite_density_stays_finite_far_away() -> None:
    z = torch.tensor([0.0, 1e3, -1e4, 1e6])
    assert composite_log_density(z, torch.zeros(4), torch.full((4,), -60.0)).isfinite().all()


def test_composite_density_has_the_numerical_gradient() -> None:
    leaves = [
        torch.randn(
            3,
            2,
            generator=torch.Generator().manual_seed(n),
            dtype=torch.float64,
            requires_grad=True,
        )
        for n in range(3)
    ]
    assert torch.autograd.gradcheck(composite_log_density, leaves)


def test_sampled_kl_is_the_closed_form_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    mu, logvar = (
        torch.tensor([[0.7, -1.2]], dtype=torch.float64),
        torch.tensor([[0.3, -1.0]], dtype=torch.float64),
    )
    z = mu + (logvar / 2).exp() * torch.randn(200_000, 2, generator=generator, dtype=torch.float64)
    zero = torch.zeros((), dtype=torch.float64)
    draws = sampled_kl(z, mu, logvar, gaussian_log_density(z, zero, zero))
    assert float(draws.mean()) == pytest.approx(
        gaussian_kl(mu, logvar).item(), abs=5 * float(draws.std()) / 200_000**0.5
    )


# The objective and its alternation.


def test_the_kl_weighs_gamma_for_each_item_and_the_prior_sees_clean_input() -> None:
    config = RecVAEConfig(hidden_dim=9, latent_dim=4, gamma=0.02)
    step, x = TrainingStep(30, config, TrainingConfig(seed=3)), random_dense(8, 30, 5)
    for value in memory_of(step).values():
        value.add_(0.1)
    rows = sparse(x)
    told = step(rows, "encoder")
    again = TrainingStep(30, config, TrainingConfig(seed=3))
    recorded: list[Tensor] = []

    def record(
        network: Autoencoder, z: Tensor, mu: Tensor, logvar: Tensor, rows: SparseRows
    ) -> Tensor:
        old = recvae(30, config)
        old.load_state_dict({**old.state_dict(), **memory_of(step)})
        with torch.no_grad():
            earlier = dense_posterior(old, torch.tensor(x).float())
        recorded.append(sampled_kl(z, mu, logvar, composite_log_density(z, *earlier)))
        return recorded[0]

    assert again.prior is not None
    again.prior.divergence = record  # type: ignore[method-assign]
    assert float(again(rows, "encoder")["loss"]) == pytest.approx(float(told["loss"]), rel=1e-5)
    weighed = float((0.02 * rows.counts * recorded[0].detach()).mean())
    assert float(told["loss"]) == pytest.approx(float(told["nll"]) + weighed, rel=1e-5)


def test_encoder_and_decoder_learn_in_turns_and_the_prior_follows() -> None:
    run = TrainingLoop(DATA, RunConfig.of(VALUES), Execution("cpu"))
    names = [name for name, _ in run.step.network.named_parameters()]
    per_pass, seen = -(-len(run.rows) // 60), []
    for users, part in run.batches():
        before = {
            name: value.detach().clone() for name, value in run.step.network.named_parameters()
        }
        assert run.step.anchors is not None
        anchors, prior = (
            run.step.anchors.detach().clone(),
            {name: value.clone() for name, value in memory_of(run.step).items()},
        )
        run.advance(users, part)
        moved = {
            name
            for name, value in run.step.network.named_parameters()
            if not torch.equal(value, before[name])
        }
        of_decoder = {"output.weight", "output.bias"}
        assert moved == (of_decoder if part == "decoder" else set(names) - of_decoder)
        assert torch.equal(run.step.anchors, anchors) == (part == "decoder")
        now = memory_of(run.step)
        changed = any(not torch.equal(value, now[name]) for name, value in prior.items())
        assert changed == (part == "decoder" and "decoder" not in seen)
        if part == "decoder":
            assert all(torch.equal(value, before[name]) for name, value in now.items())
        seen.append(part)
    assert seen == ["encoder"] * 2 * per_pass + ["decoder"] * per_pass


def test_the_alternation_can_be_read_in_the_history(tmp_path: Path) -> None:
    train(DATA, RunConfig.of(VALUES), out=tmp_path / "run")
    for entry in read_history(tmp_path / "run"):
        assert {"nll", "kl", "pia", "decoder_nll", "decoder_kl"} <= set(entry)
        assert entry["step"] == entry["epoch"] * 3 * 3


def test_the_decoder_learns_from_clean_input() -> None:
    step, rows = TrainingStep(30, SMALL, TrainingConfig(seed=3)), sparse(random_dense(8, 30, 5))
    twin = TrainingStep(
        30, RecVAEConfig(hidden_dim=9, latent_dim=4, keep_prob=0.01), TrainingConfig(seed=3)
    )
    assert float(step(rows, "decoder")["nll"]) == float(twin(rows, "decoder")["nll"])
    assert float(step(rows, "encoder")["nll"]) != float(twin(rows, "encoder")["nll"])


def test_sampling_noise_has_standard_deviation_one() -> None:
    """The 100 times smaller noise of two ports would give nearly the likelihood of the mean."""
    step, rows = TrainingStep(30, SMALL, TrainingConfig(seed=3)), sparse(random_dense(400, 30, 5))
    assert isinstance(step.network, RecVAE)
    step.network.output.weight.data.mul_(5)
    with torch.no_grad():
        logits = step.network.score(rows)
        at_mean = -(functional.log_softmax(logits, dim=1)[rows.row, rows.indices]).sum() / len(rows)
        mu, logvar = step.network.posterior(rows, input_scale(rows.counts))
        z = mu + (logvar / 2).exp() * torch.randn(
            mu.shape, generator=torch.Generator().manual_seed(0)
        )
        expected = -(
            functional.log_softmax(step.network.decode(z), dim=1)[rows.row, rows.indices]
        ).sum() / len(rows)
    found = float(step(rows, "decoder")["nll"])
    assert abs(found - float(expected)) < 0.2 * abs(float(at_mean) - float(expected))


@pytest.mark.parametrize("n_steps", [1, 5, 8, 10, 12, 13, 23])
def test_resume_anywhere_in_the_alternation_changes_nothing(n_steps: int, tmp_path: Path) -> None:
    whole = train(DATA, RunConfig.of(VALUES), out=tmp_path / "whole")
    _stop_after(n_steps, tmp_path / "run")
    resumed = train(DATA, RunConfig.of(VALUES), out=tmp_path / "run", resume=True)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    histories = (
        [{k: v for k, v in one.items() if k != "seconds"} for one in read_history(tmp_path / run)]
        for run in ("whole", "run")
    )
    assert next(histories) == next(histories)


def _stop_after(n_steps: int, out: Path) -> None:
    from coterie.training.checkpoint import save_checkpoint  # noqa: PLC0415
    from coterie.training.run_folder import RunFolder  # noqa: PLC0415

    with RunFolder(out, RunConfig.of(VALUES), DATA, Execution("cpu"), resume=True) as folder:
        run = TrainingLoop(DATA, RunConfig.of(VALUES), Execution("cpu"), folder)
    while not run.finished():
        for users, part in run.batches():
            run.advance(users, part)
            if run.position.n_steps == n_steps:
                run.position.sums = {name: float(total) for name, total in run._sums.items()}
                save_checkpoint(folder.checkpoint, run.position, run.step.state(), run.best)
                return
        run.close_epoch()
