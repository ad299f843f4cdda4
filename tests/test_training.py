"""A training step against a plain dense one written here, every known mistake by itself, and the
loop around steps.
"""

import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from coterie.config import RunConfig, TrainingConfig
from coterie.data.dataset import Dataset
from coterie.data.split import Part, Split
from coterie.errors import ArtifactError, ConfigError, NumericalError
from coterie.evaluation.evaluate import evaluate
from coterie.models.ease import EaseConfig
from coterie.models.fields import StrictConfig
from coterie.models.graph_filter import BspmConfig, GfCfConfig
from coterie.models.ials import IalsConfig
from coterie.models.item_item import ItemKnnConfig, Rp3BetaConfig, SlimConfig
from coterie.models.kinds import ClosedFormConfig
from coterie.models.linear_path_recvae import LinearPathRecVAEConfig
from coterie.models.linear_path_vae import LinearPathVAEConfig
from coterie.models.most_watched import MostWatchedConfig
from coterie.models.multdae import MultDAEConfig
from coterie.models.multvae import MultVAEConfig
from coterie.models.popularity import PopularityConfig
from coterie.models.recvae import RecVAEConfig
from coterie.models.vamp_vae import VampVAEConfig
from coterie.networks.multdae import MultDAE
from coterie.networks.multvae import MultVAE
from coterie.objectives.likelihood import multinomial_nll
from coterie.running.execution import Execution, Precision
from coterie.running.progress import Update
from coterie.simulation.service import SimulatedService, simulate_dataset
from coterie.sparse import SparseRows
from coterie.training import objective as objective_module
from coterie.training.proposal import Proposal
from coterie.training.randomness import NOISE, ORDER, seeded
from coterie.training.run_folder import read_anchors
from coterie.training.run_record import read_history
from coterie.training.step import TrainingStep
from coterie.training.tensorboard import tensorboard_events
from coterie.training.trained_model import TrainedModel
from coterie.training.trainer import train
from scorer_contract import check_recommender, check_scorer, random_histories
from test_models import DenseLayers, normalized
from test_sparse import DEVICES, random_dense, sparse

N_ITEMS = 40
VAE = MultVAEConfig(
    hidden_dims=(12,), latent_dim=5, keep_prob=0.6, beta=0.7, anneal_steps=3, pia=0.4
)
DAE = MultDAEConfig(hidden_dims=(12,), latent_dim=5, keep_prob=0.6)


# The oracle: dense tensors, one formula after another, and Adam by hand.


class NaiveTraining:
    """Mult-VAE with PIA, or Mult-DAE, on dense rows, from the initial weights and with the random
    draws of a `TrainingStep`.
    """

    def __init__(self, step: TrainingStep) -> None:
        self.model, self.training = step.model, step.training
        self.layers = DenseLayers(step.network)
        self.anchors = (
            None if step.anchors is None else step.anchors.detach().clone().requires_grad_()
        )
        self.parameters = [
            *self.layers.parameters(),
            *([] if self.anchors is None else [self.anchors]),
        ]
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters]
        self.n_steps = 0

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        terms = self.terms(x)
        matrices = [p for p in self.layers.parameters() if p.ndim == 2]
        penalty = sum(
            (0.5 * self.training.weight_decay * p.square().sum() for p in matrices), torch.zeros(())
        )
        self._adam(torch.autograd.grad(terms["loss"] + penalty, self.parameters))
        self.n_steps += 1
        return terms

    def terms(self, x: Tensor) -> dict[str, Tensor]:
        generator = seeded(self.training.seed, NOISE, self.n_steps)
        mask = torch.zeros_like(x)
        mask[x == 1] = (
            torch.rand(int(x.sum()), generator=generator) < self.model.keep_prob
        ).float()
        code = self.layers.encoder(normalized(x) * mask / self.model.keep_prob)
        if isinstance(self.model, MultDAEConfig):
            nll = self._nll(torch.tanh(code), x)
            return {"loss": nll, "nll": nll}
        assert isinstance(self.model, MultVAEConfig)
        mu, logvar = code.chunk(2, dim=1)
        z = mu + torch.exp(0.5 * logvar) * torch.randn(mu.shape, generator=generator)
        nll = self._nll(z, x)
        kl = (0.5 * (mu**2 + logvar.exp() - 1 - logvar)).sum(dim=1).mean()
        beta = self.model.beta * min(1.0, self.n_steps / self.model.anneal_steps)
        if self.anchors is None:
            return {"loss": nll + beta * kl, "nll": nll, "kl": kl}
        pia = torch.stack(
            [_alignment(*user, self.anchors) for user in zip(x, mu, logvar, strict=True)]
        ).mean()
        return {"loss": nll + beta * kl + self.model.pia * pia, "nll": nll, "kl": kl, "pia": pia}

    def _nll(self, z: Tensor, x: Tensor) -> Tensor:
        return -(x * torch.log_softmax(self.layers.decoder(z), dim=1)).sum(dim=1).mean()

    def _adam(self, grads: tuple[Tensor, ...]) -> None:
        t = self.n_steps + 1
        for parameter, grad, (m, v) in zip(self.parameters, grads, self.moments, strict=True):
            m.mul_(0.9).add_(0.1 * grad)
            v.mul_(0.999).add_(0.001 * grad**2)
            update = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
            parameter.data.sub_(self.training.learning_rate * update)


def _alignment(x: Tensor, mu: Tensor, logvar: Tensor, anchors: Tensor) -> Tensor:
    if x.sum() == 0:
        return torch.zeros(())
    return (mu - anchors[x == 1]).square().sum(dim=1).mean() + logvar.exp().sum()


def batch(seed: int, n_users: int = 25) -> Tensor:
    return torch.from_numpy(random_dense(n_users, N_ITEMS, seed)).float()


def assert_same_weights(naive: NaiveTraining, step: TrainingStep, atol: float) -> None:
    for one, other in zip(
        naive.layers.parameters(), DenseLayers(step.network).parameters(), strict=True
    ):
        torch.testing.assert_close(one.detach(), other.detach(), rtol=0, atol=atol)
    if naive.anchors is not None:
        assert step.anchors is not None
        torch.testing.assert_close(naive.anchors.detach(), step.anchors.detach(), rtol=0, atol=atol)


@pytest.mark.parametrize("hidden_dims", [(), (12,), (12, 7)])
@pytest.mark.parametrize(
    "model", [VAE, VAE.model_copy(update={"pia": 0.0}), DAE], ids=["vae+pia", "vae", "dae"]
)
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_training_step_is_the_naive_dense_one(
    model: MultVAEConfig | MultDAEConfig, hidden_dims: tuple[int, ...], weight_decay: float
) -> None:
    training = TrainingConfig(learning_rate=0.01, weight_decay=weight_decay, seed=3)
    step = TrainingStep(N_ITEMS, model.model_copy(update={"hidden_dims": hidden_dims}), training)
    naive = NaiveTraining(step)
    for number in range(5):
        x = batch(number)
        expected, found = naive(x), step(sparse(x.numpy()))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert float(found[name]) == pytest.approx(float(value.detach()), rel=1e-5), (
                number,
                name,
            )
    assert_same_weights(naive, step, atol=2e-5)


def test_naive_oracle_is_sharp_enough() -> None:
    """A step that differs by one part in a hundred from the naive one must not pass for it."""
    training = TrainingConfig(learning_rate=0.01, seed=3)
    naive = NaiveTraining(TrainingStep(N_ITEMS, VAE, training))
    other = TrainingStep(N_ITEMS, VAE.model_copy(update={"pia": VAE.pia * 1.01}), training)
    for number in range(5):
        naive(batch(number))
        other(sparse(batch(number).numpy()))
    with pytest.raises(AssertionError):
        assert_same_weights(naive, other, atol=2e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_training_step_in_bf16_stays_close_and_keeps_wide_weights(device: str) -> None:
    rows = sparse(batch(0, 60).numpy(), device)
    wide, narrow = (
        TrainingStep(N_ITEMS, VAE, execution=Execution(device, precision=p))
        for p in get_args(Precision)
    )
    for _ in range(4):
        expected, found = wide(rows), narrow(rows)
        for name, value in found.items():
            assert value.dtype == torch.float32
            assert float(value) == pytest.approx(float(expected[name]), rel=0.03), name
    assert all(value.dtype == torch.float32 for value in narrow.state().values())
    assert any(
        not torch.equal(value, wide.state()[name]) for name, value in narrow.state().items()
    ), "autocast changed nothing"


def test_seeded_streams_and_numbers_are_independent() -> None:
    first = {
        (s, stream, n): int(torch.randint(2**62, (1,), generator=seeded(s, stream, n)))
        for s in range(3)
        for stream in range(3)
        for n in range(4)
    }
    assert len(set(first.values())) == len(first)
    assert first[1, 2, 3] == int(torch.randint(2**62, (1,), generator=seeded(1, 2, 3)))


# Ways to take the same step, and two that take another on purpose.


def descend(step: TrainingStep, n_steps: int = 5) -> list[dict[str, float]]:
    return [
        {name: float(term) for name, term in step(sparse(batch(seed).numpy())).items()}
        for seed in range(n_steps)
    ]


def assert_close_steps(one: TrainingStep, other: TrainingStep, n_steps: int = 5) -> None:
    """The same terms and weights, to float32's rounding after some steps of Adam."""
    for mine, theirs in zip(descend(one, n_steps), descend(other, n_steps), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)
    state, expected = one.state(), other.state()
    for name in (name for name in state if not name.startswith(("adam", "sparse-adam"))):
        torch.testing.assert_close(state[name], expected[name], rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize("model", [VAE, DAE], ids=["mult-vae", "mult-dae"])
def test_step_in_chunks_is_the_whole_step(model: MultVAEConfig | MultDAEConfig) -> None:
    assert_close_steps(
        TrainingStep(N_ITEMS, model, TrainingConfig(chunk_items=7)), TrainingStep(N_ITEMS, model)
    )


def test_step_goes_over_to_chunks_when_its_logits_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chunks: list[int | None] = []

    def spy(*args: Any) -> Tensor:
        chunks.append(args[-1])
        return multinomial_nll(*args)

    monkeypatch.setattr(objective_module, "multinomial_nll", spy)
    for limit in (25 * N_ITEMS, 25 * N_ITEMS - 1):
        monkeypatch.setattr(objective_module, "LOGITS_AT_ONCE", limit)
        TrainingStep(N_ITEMS, VAE)(sparse(batch(0).numpy()))
    assert chunks == [None, objective_module.CHUNK_ITEMS]


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # of torch's own, while it loads its compiler and traces
def test_compiled_step_is_the_eager_one() -> None:
    assert_close_steps(
        TrainingStep(N_ITEMS, VAE, execution=Execution("cpu", compile=True)),
        TrainingStep(N_ITEMS, VAE),
    )


def test_sparse_updates_are_dense_ones_where_every_row_is_met() -> None:
    everything = sparse(np.ones((25, N_ITEMS)))
    clean = VAE.model_copy(update={"keep_prob": 1.0})
    steps = [
        TrainingStep(N_ITEMS, clean, TrainingConfig(sparse_updates=lazy)) for lazy in (True, False)
    ]
    for _ in range(5):
        for step in steps:
            step(everything)
    lazy_state, dense_state = (step.state() for step in steps)
    for name in [name for name in lazy_state if name.startswith(("network", "anchors"))]:
        # The two differ in where ε stands: 1e-8 beside a root of a mean square that is far larger.
        torch.testing.assert_close(
            lazy_state[name], dense_state[name], rtol=1e-3, atol=2e-5, msg=name
        )


@pytest.mark.parametrize("sampled_items", [0, 3])
def test_sparse_updates_leave_rows_that_were_not_met_alone(sampled_items: int) -> None:
    step = TrainingStep(
        N_ITEMS, VAE, TrainingConfig(sparse_updates=True, sampled_items=sampled_items)
    )
    x = batch(0)
    x[:, N_ITEMS // 2 :] = 0
    assert step.anchors is not None
    matrices = {"input": step.network.input.weight, "anchors": step.anchors}
    before = {name: matrix.detach().clone() for name, matrix in matrices.items()}
    output = step.network.output.weight.detach().clone()
    step(sparse(x.numpy()))
    for name, matrix in matrices.items():
        changed = (matrix != before[name]).any(dim=1)
        assert not changed[N_ITEMS // 2 :].any(), name
        assert changed.any(), name
    changed = (step.network.output.weight != output).any(dim=1)
    assert changed[: N_ITEMS // 2].all()
    # With all items in the soft-max each learns; of a sample of three no more than three beside the
    # positives do.
    assert int(changed[N_ITEMS // 2 :].sum()) <= 3 if sampled_items else changed.all()


@pytest.mark.parametrize("sparse_updates", [False, True])
def test_sampled_step_goes_on_from_its_checkpoint(sparse_updates: bool) -> None:
    training = TrainingConfig(sampled_items=9, sparse_updates=sparse_updates)
    popular = csr_array(np.tri(N_ITEMS))  # the first item has most users
    straight, first, second = (
        TrainingStep(N_ITEMS, VAE, training, train=popular) for _ in range(3)
    )
    expected = descend(straight, 6)
    assert descend(first, 3) == expected[:3]
    second.restore({name: value.clone() for name, value in first.state().items()}, first.n_steps)
    found = [
        {name: float(term) for name, term in second(sparse(batch(seed).numpy())).items()}
        for seed in range(3, 6)
    ]
    assert found == expected[3:]
    for name, value in straight.state().items():
        assert torch.equal(value, second.state()[name]), name


def test_proposal_draws_half_by_popularity_and_half_evenly() -> None:
    proposal = Proposal(4, np.array([0, 6, 2, 0]), "cpu")
    expected = torch.tensor([0.125, 0.5, 0.25, 0.125], dtype=torch.float64)
    assert torch.equal(proposal.probability, expected)
    items, times = proposal.draw(40_000, torch.Generator().manual_seed(1))
    torch.testing.assert_close(torch.bincount(items) / 40_000, expected.float(), rtol=0.05, atol=0)
    assert torch.equal(times, (40_000 * expected[items]).float())
    for nothing in (None, np.zeros(4)):
        assert Proposal(4, nothing, "cpu").probability.tolist() == [0.25] * 4


# Each known mistake of public ports, by itself.


def with_posterior(step: TrainingStep, mu: float, logvar: float) -> TrainingStep:
    """Makes the encoder answer the same for everybody."""
    *_, last = step.network.get_submodule("encoder").children()
    assert isinstance(last, nn.Linear)
    last.weight.data.zero_()
    last.bias.data[: last.out_features // 2] = mu
    last.bias.data[last.out_features // 2 :] = logvar
    return step


def with_uniform_decoder(step: TrainingStep) -> TrainingStep:
    step.network.output.weight.data.zero_()
    step.network.output.bias.data.zero_()
    return step


def inputs_of(layer: nn.Module, act: Callable[[], Any]) -> Tensor:
    """What reached ``layer`` while ``act`` ran."""
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    act()
    handle.remove()
    assert len(seen) == 1
    return seen[0]


def plain(**fields: Any) -> MultVAEConfig:
    return MultVAEConfig(
        **{
            "hidden_dims": (8,),
            "latent_dim": 16,
            "keep_prob": 1.0,
            "anneal_steps": 0,
            "beta": 1.0,
            **fields,
        }
    )


@pytest.mark.parametrize("logvar", [0.0, math.log(4), math.log(1e-4)])
def test_mistake_noise_of_the_wrong_standard_deviation(logvar: float) -> None:
    step = with_posterior(TrainingStep(N_ITEMS, plain()), mu=3.0, logvar=logvar)
    z = inputs_of(
        step.network.get_submodule("decoder.0"), lambda: step(sparse(batch(0, 500).numpy()))
    )
    sigma, error = math.exp(logvar / 2), 1 / math.sqrt(z.numel())
    assert float((z - 3).mean()) / sigma == pytest.approx(0, abs=5 * error)
    assert float((z - 3).square().mean().sqrt()) / sigma == pytest.approx(1, abs=5 * error)
    # Drawn for every user and dimension: no column or row repeats.
    assert len(set(z.flatten().tolist())) > 0.9 * z.numel()


def test_mistake_noise_at_evaluation() -> None:
    step = with_posterior(TrainingStep(N_ITEMS, plain()), mu=3.0, logvar=0.0)
    z = inputs_of(
        step.network.get_submodule("decoder.0"),
        lambda: step.score(random_histories(20, N_ITEMS, 0)),
    )
    assert (z == 3).all()


@pytest.mark.parametrize("latent_dim", [1, 4, 64])
def test_mistake_kl_averaged_over_latent_dimensions(latent_dim: int) -> None:
    step = with_posterior(TrainingStep(N_ITEMS, plain(latent_dim=latent_dim)), mu=2.0, logvar=0.0)
    assert float(step(sparse(batch(0).numpy()))["kl"]) == pytest.approx(2.0 * latent_dim)


@pytest.mark.parametrize("n_users", [1, 10])
def test_mistake_kl_or_likelihood_summed_over_users(n_users: int) -> None:
    step = with_uniform_decoder(
        with_posterior(TrainingStep(N_ITEMS, plain(latent_dim=3)), mu=2.0, logvar=0.0)
    )
    x = np.zeros((n_users, N_ITEMS))
    x[:, :7] = 1
    terms = step(sparse(x))
    assert float(terms["kl"]) == pytest.approx(6.0)
    assert float(terms["nll"]) == pytest.approx(7 * math.log(N_ITEMS), rel=1e-5)


def test_mistake_likelihood_averaged_over_items() -> None:
    step = with_uniform_decoder(TrainingStep(N_ITEMS, plain()))
    x = np.tril(np.ones((N_ITEMS, N_ITEMS)))
    assert float(step(sparse(x))["nll"]) == pytest.approx(
        (N_ITEMS + 1) / 2 * math.log(N_ITEMS), rel=1e-5
    )


def test_mistake_likelihood_of_the_masked_input() -> None:
    # A uniform decoder's likelihood counts the items of the target: all, though one in ten is
    # shown.
    step = with_uniform_decoder(TrainingStep(N_ITEMS, plain(keep_prob=0.1)))
    assert float(step(sparse(np.ones((10, N_ITEMS))))["nll"]) == pytest.approx(
        N_ITEMS * math.log(N_ITEMS), rel=1e-5
    )


def test_mistake_alignment_with_the_masked_items() -> None:
    step = with_posterior(
        TrainingStep(N_ITEMS, plain(keep_prob=0.1, pia=1.0)), mu=0.0, logvar=-60.0
    )
    assert step.anchors is not None
    # With all anchors but one at the origin, the term tells how many items it was averaged over.
    step.anchors.data.zero_()
    step.anchors.data[0, 0] = 6.0
    assert float(step(sparse(np.ones((200, N_ITEMS))))["pia"]) == pytest.approx(
        36 / N_ITEMS, rel=1e-4
    )


def entry_counting(step: TrainingStep) -> TrainingStep:
    """Makes the first layer add up its input: the second one receives tanh(sum / 1000)."""
    step.network.input.weight.data.fill_(1e-3)
    step.network.input.bias.data.zero_()
    return step


def input_sums(step: TrainingStep, act: Callable[[], Any]) -> Tensor:
    """The sum of each user's entries as the encoder saw them."""
    return 1000 * torch.atanh(
        inputs_of(step.network.get_submodule("encoder.0"), act)[:, 0].double()
    )


def test_mistake_no_input_normalisation() -> None:
    x = np.tril(np.ones((N_ITEMS, N_ITEMS)))
    expected = torch.arange(1, N_ITEMS + 1).double().sqrt()
    # n entries of 1 / sqrt(n) add up to sqrt(n); the same row at training and at evaluation.
    step = entry_counting(TrainingStep(N_ITEMS, plain()))
    evaluated = input_sums(step, lambda: step.network.score(sparse(x)))
    trained = input_sums(step, lambda: step(sparse(x)))
    torch.testing.assert_close(trained, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(evaluated, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "model",
    [plain(keep_prob=0.25), MultDAEConfig(hidden_dims=(8,), keep_prob=0.25)],
    ids=["vae", "dae"],
)
def test_mistake_no_input_dropout(model: MultVAEConfig | MultDAEConfig) -> None:
    x, n_users = np.ones((2000, N_ITEMS)), 2000
    step = entry_counting(TrainingStep(N_ITEMS, model))
    sums = input_sums(step, lambda: step(sparse(x)))
    # k kept of n, each 1 / (keep_prob · sqrt(n)): whole numbers k of the binomial law.
    kept = sums * 0.25 * math.sqrt(N_ITEMS)
    torch.testing.assert_close(kept, kept.round(), rtol=0, atol=1e-2)
    variance = N_ITEMS * 0.25 * 0.75
    assert float(kept.mean()) == pytest.approx(
        N_ITEMS * 0.25, abs=5 * math.sqrt(variance / n_users)
    )
    assert float(kept.var()) == pytest.approx(variance, rel=0.2)


def test_mistake_the_same_mask_or_noise_every_step() -> None:
    step = TrainingStep(N_ITEMS, VAE, TrainingConfig(learning_rate=1e-30))
    rows = sparse(batch(0).numpy())
    # The weights stand still: only the draws can change the terms.
    terms = [step(rows) for _ in range(6)]
    assert len({float(one["nll"]) for one in terms}) == 6
    assert len({float(one["kl"]) for one in terms}) == 6


def test_mistake_input_dropout_at_evaluation() -> None:
    step = entry_counting(TrainingStep(N_ITEMS, plain(keep_prob=0.25)))
    sums = input_sums(step, lambda: step.network.score(sparse(np.ones((50, N_ITEMS)))))
    torch.testing.assert_close(
        sums, torch.full((50,), math.sqrt(N_ITEMS), dtype=torch.float64), rtol=1e-5, atol=0
    )


def test_mistake_beta_overshooting_then_dropping() -> None:
    step = TrainingStep(N_ITEMS, plain(beta=0.2, anneal_steps=10))
    weights = []
    for number in range(40):
        announced, terms = step.schedule()["beta"], step(sparse(batch(number).numpy()))
        weights.append(
            float((terms["loss"].double() - terms["nll"].double()) / terms["kl"].double())
        )
        # What is reported is what is used; the division above costs digits.
        assert weights[-1] == pytest.approx(announced, abs=1e-4 * float(terms["nll"] / terms["kl"]))
        assert announced == pytest.approx(0.2 * min(number / 10, 1))


def test_mistake_nan_for_an_empty_history() -> None:
    step = TrainingStep(N_ITEMS, VAE)
    x = np.zeros((4, N_ITEMS))
    for _ in range(3):
        terms = step(sparse(x))
        assert all(value.isfinite() for value in terms.values())
        assert terms["nll"] == 0
        assert terms["pia"] == 0
    x[0, :5] = 1
    step(sparse(x))
    assert all(value.isfinite().all() for value in step.state().values())
    assert step.network.score(sparse(x)).isfinite().all()


@pytest.mark.parametrize("latent_dim", [3, 8])
def test_mistake_latent_dim_halved(latent_dim: int) -> None:
    step = TrainingStep(N_ITEMS, plain(latent_dim=latent_dim, pia=0.1))
    assert isinstance(step.network, MultVAE)
    assert step.anchors is not None
    assert step.anchors.shape == (N_ITEMS, latent_dim)
    assert step.network.posterior(sparse(batch(0).numpy()))[0].shape[1] == latent_dim
    assert (
        inputs_of(step.network.decoder[0], lambda: step(sparse(batch(0).numpy()))).shape[1]
        == latent_dim
    )


def test_mistake_weight_decay_on_biases_and_anchors() -> None:
    step = TrainingStep(N_ITEMS, VAE, TrainingConfig(weight_decay=1e6, learning_rate=1e-3))
    # No data: biases and anchors have no gradient, and weights nothing but their decay.
    before = {name: value.clone() for name, value in step.state().items()}
    step.network.output.bias.data.zero_()
    step(sparse(np.zeros((3, N_ITEMS))))
    after = step.state()
    assert torch.equal(after["anchors"], before["anchors"])
    assert (after["network.output.bias"] == 0).all()
    shrunk = after["network.output.weight"].abs() < before["network.output.weight"].abs()
    assert shrunk[before["network.output.weight"].abs() > 2e-3].all()


# The loop.


DATA = simulate_dataset(n_users=260, n_items=50, held_out_users=40, seed=2)
QUICK = {"epochs": 3, "batch_size": 50, "learning_rate": 0.01, "metric": "ndcg@10"}
QUICK_VAE = {
    "hidden_dims": [16],
    "latent_dim": 6,
    "anneal_steps": 5,
    "pia": 0.2,
    "name": "mult-vae",
}
OVERFITTING = {**QUICK_VAE, "keep_prob": 1.0, "beta": 0.0, "pia": 0.0}
"""With a large step size the validation falls long before the last epoch."""
QUICK_DAE = {"latent_dim": 6, "name": "mult-dae"}
QUICK_REC = {"hidden_dim": 12, "latent_dim": 6, "encoder_epochs": 2, "pia": 0.2, "name": "recvae"}


def config(model: Mapping[str, Any] = QUICK_VAE, **training: Any) -> RunConfig:
    return RunConfig.of({"model": dict(model), "training": {**QUICK, **training}})


def weights_of(model: TrainedModel) -> dict[str, Tensor]:
    return model.network.state_dict()


def same_weights(one: TrainedModel, other: TrainedModel) -> bool:
    a, b = weights_of(one), weights_of(other)
    return a.keys() == b.keys() and all(
        value.shape == b[name].shape and torch.equal(value, b[name]) for name, value in a.items()
    )


def without_validation(data: Dataset) -> Dataset:
    """The same data set with its validation users among the training users."""
    parts = [
        np.where(part == Part.VALIDATION, np.uint8(Part.TRAIN), part)
        for part in data.split.arrays.values()
    ]
    return Dataset(data.interactions, Split(*parts), data.titles)


def untimed(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in entry.items() if name != "seconds"} for entry in history
    ]


def test_train_is_a_loop_of_steps_in_a_seeded_order() -> None:
    asked = config(batch_size=33, seed=4)
    data = without_validation(DATA)
    assert isinstance(asked.model, MultVAEConfig)
    step, rows = (
        TrainingStep(data.n_items, asked.model, asked.training),
        SparseRows.from_csr(data.train),
    )
    for epoch in range(3):
        order = torch.randperm(len(rows), generator=seeded(4, ORDER, epoch))
        for start in range(0, len(rows), 33):
            step(rows.take(order[start : start + 33]))
    trained = weights_of(train(data, asked))
    for name, value in step.network.state_dict().items():
        assert torch.equal(value, trained[name])


@pytest.mark.parametrize("model", [QUICK_VAE, QUICK_DAE], ids=["vae", "dae"])
def test_train_gives_equal_bits_for_equal_seeds(model: Mapping[str, Any]) -> None:
    one = train(DATA, config(model, seed=1))
    torch.manual_seed(99)
    np.random.seed(99)
    assert same_weights(one, train(DATA, config(model, seed=1)))
    assert not same_weights(one, train(DATA, config(model, seed=2)))


def test_train_leaves_the_global_generators_alone() -> None:
    before = torch.get_rng_state(), str(np.random.get_state(legacy=False))
    train(DATA, config(epochs=1))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert str(np.random.get_state(legacy=False)) == before[1]


def test_train_returns_the_best_epoch(tmp_path: Path) -> None:
    asked = config(OVERFITTING, epochs=15, learning_rate=0.05)
    model = train(DATA, asked, out=tmp_path / "run")
    history = read_history(tmp_path / "run")
    values = [entry["validation"]["ndcg@10"] for entry in history]
    best = int(np.argmax(values)) + 1
    assert best < len(history) == 15
    assert model.provenance["best_epoch"] == history[-1]["best_epoch"] == best
    assert model.provenance["best_validation"] == max(values)
    assert evaluate(model, DATA.cases(Part.VALIDATION), metrics=["ndcg@10"]).mean("ndcg@10") == max(
        values
    )
    # A shorter run that ends there is the same model.
    assert same_weights(model, train(DATA, config(OVERFITTING, epochs=best, learning_rate=0.05)))


@pytest.mark.parametrize(("patience", "validate_every"), [(1, 1), (3, 1), (2, 3)])
def test_train_stops_when_patience_runs_out(
    tmp_path: Path, patience: int, validate_every: int
) -> None:
    asked = config(
        OVERFITTING, epochs=60, learning_rate=0.05, patience=patience, validate_every=validate_every
    )
    train(DATA, asked, out=tmp_path / "run")
    history = read_history(tmp_path / "run")
    assert len(history) == history[-1]["best_epoch"] + patience * validate_every < 60
    assert [entry["epoch"] for entry in history if "validation" in entry] == list(
        range(validate_every, len(history) + 1, validate_every)
    )


def test_train_validates_at_its_last_epoch(tmp_path: Path) -> None:
    # Otherwise a run shorter than validate_every would give back its initial weights.
    model = train(DATA, config(epochs=5, validate_every=7), out=tmp_path / "run")
    assert [
        ("validation" in entry, entry["best_epoch"]) for entry in read_history(tmp_path / "run")
    ] == [(False, 0)] * 4 + [(True, 5)]
    # The last of five epochs, and not the first weights.
    assert same_weights(model, train(DATA, config(epochs=5, validate_every=5)))
    assert not same_weights(model, train(DATA, config(epochs=4, validate_every=7)))


def test_train_without_validation_cases_returns_the_last_epoch(tmp_path: Path) -> None:
    data = without_validation(DATA)
    model = train(data, config(epochs=4, patience=1), out=tmp_path / "run")
    history = read_history(tmp_path / "run")
    assert [entry["best_epoch"] for entry in history] == [1, 2, 3, 4]
    assert not any("validation" in entry for entry in history)
    assert model.provenance["best_epoch"] == 4
    assert model.provenance["best_validation"] is None
    assert not same_weights(model, train(data, config(epochs=3)))


def test_train_raises_when_the_loss_is_no_longer_finite(tmp_path: Path) -> None:
    with pytest.raises(
        NumericalError, match=r"loss must stay finite.*in epoch 1; lower the learning rate"
    ):
        train(DATA, config(learning_rate=1e30), out=tmp_path / "run")
    assert read_history(tmp_path / "run") == []
    assert not (tmp_path / "run" / "model").exists()


def test_history_tells_each_epoch(tmp_path: Path) -> None:
    train(DATA, config(epochs=4, batch_size=70), out=tmp_path / "run")
    history = read_history(tmp_path / "run")
    n_batches = -(-DATA.train.shape[0] // 70)
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4]
    assert [entry["step"] for entry in history] == [n_batches * epoch for epoch in range(1, 5)]
    assert [entry["beta"] for entry in history] == pytest.approx(
        [0.2 * min(1, n_batches * epoch / 5) for epoch in range(1, 5)]
    )
    for entry in history:
        assert entry.keys() == {
            "epoch",
            "step",
            "loss",
            "nll",
            "kl",
            "pia",
            "beta",
            "validation",
            "best_epoch",
            "seconds",
        }
        assert entry["seconds"] >= 0
        assert 0 < entry["validation"]["ndcg@10"] < 1
    assert history[-1]["nll"] < history[0]["nll"]


def test_progress_has_each_epoch_and_what_it_raises_leaves_a_run_that_resumes(
    tmp_path: Path,
) -> None:
    updates: list[Update] = []
    whole = train(DATA, config(epochs=4), out=tmp_path / "whole", progress=updates.append)
    epochs = [dict(update.facts) for update in updates if update.facts]
    assert epochs == read_history(tmp_path / "whole")
    assert [update.done for update in updates if update.facts] == [1, 2, 3, 4]
    assert [update.done for update in updates] == sorted(update.done for update in updates)
    assert {(update.work, update.total, update.unit) for update in updates} == {
        ("training mult-vae + PIA", 4, "epochs")
    }

    def leave(update: Update) -> None:
        if update.facts.get("epoch") == 2:
            raise KeyError(update.facts["validation"]["ndcg@10"])

    with pytest.raises(KeyError, match=str(epochs[1]["validation"]["ndcg@10"])):
        train(DATA, config(epochs=4), out=tmp_path / "left", progress=leave, checkpoint_seconds=0)
    assert not (tmp_path / "left" / "model").exists()
    updates.clear()
    out = tmp_path / "left"
    resumed = train(DATA, config(epochs=4), out=out, resume=True, progress=updates.append)
    rest = [dict(update.facts) for update in updates if update.facts]
    assert untimed(rest) == untimed(epochs[2:])
    assert same_weights(resumed, whole)


def test_history_terms_are_means_over_users_not_batches(tmp_path: Path) -> None:
    # The last batch is small: a mean of batch means would weigh its users more.
    asked = config(epochs=1, batch_size=150)
    train(DATA, asked, out=tmp_path / "run")
    assert isinstance(asked.model, MultVAEConfig)
    step, rows = (
        TrainingStep(DATA.n_items, asked.model, asked.training),
        SparseRows.from_csr(DATA.train),
    )
    batches = torch.split(torch.randperm(len(rows), generator=seeded(0, ORDER, 0)), 150)
    assert [len(users) for users in batches] == [150, 30]
    terms = [step(rows.take(users)) for users in batches]
    (entry,) = read_history(tmp_path / "run")
    for name in ("loss", "nll", "kl", "pia"):
        expected = sum(
            float(one[name]) * len(users) for one, users in zip(terms, batches, strict=True)
        ) / len(rows)
        assert entry[name] == pytest.approx(expected, rel=1e-12)


def test_run_folder_refuses_a_second_run(tmp_path: Path) -> None:
    train(DATA, config(epochs=1), out=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"a folder of its own.*--resume"):
        train(DATA, config(epochs=1), out=tmp_path / "run")


@pytest.mark.parametrize(("field", "value"), [("learning_rate", 0.5), ("seed", 9)])
def test_run_folder_refuses_another_configuration_by_its_field(
    tmp_path: Path, field: str, value: Any
) -> None:
    train(DATA, config(epochs=1), out=tmp_path / "run")
    with pytest.raises(ConfigError, match=rf"config\.training\.{field} was .*, now {value}"):
        train(DATA, config(**{"epochs": 1, field: value}), out=tmp_path / "run", resume=True)


def test_run_folder_refuses_another_data_set(tmp_path: Path) -> None:
    train(DATA, config(epochs=1), out=tmp_path / "run")
    with pytest.raises(ConfigError, match="dataset was"):
        train(without_validation(DATA), config(epochs=1), out=tmp_path / "run", resume=True)


def test_run_folder_records_what_was_asked_for(tmp_path: Path) -> None:
    train(DATA, config(epochs=1), out=tmp_path / "run")
    assert RunConfig.of(read_json(tmp_path / "run" / "config.json")["config"]) == config(epochs=1)
    environment = read_json(tmp_path / "run" / "environment.json")
    assert environment["torch"] == torch.__version__
    assert environment["dataset"]["fingerprint"] == DATA.fingerprint
    files = ["anchors.safetensors", "config.json", "environment.json", "history.jsonl", "model"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [*files, "run.lock"]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_train_resumes_only_in_a_run_folder() -> None:
    with pytest.raises(ConfigError, match="pass out"):
        train(DATA, config(), resume=True)


def test_train_refuses_a_device_that_is_not_there() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigError, match="'cuda' needs CUDA"):
        train(DATA, config(), device="cuda")


def test_train_prints_nothing_and_logs_its_epochs(
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Handlers that libraries or tests before this one left in the process are not what train does.
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])
    monkeypatch.setattr(logging.getLogger("coterie"), "handlers", [])
    monkeypatch.setattr(logging.getLogger("coterie"), "propagate", True)
    with caplog.at_level("INFO", "coterie"):
        train(DATA, config(epochs=2))
    assert capsys.readouterr() == ("", "")
    assert [line.partition(":")[0] for line in caplog.messages] == ["epoch 1", "epoch 2"]


# Every field of every configuration does something.

BASE: dict[type[StrictConfig], dict[str, Any]] = {
    MultVAEConfig: QUICK_VAE,
    MultDAEConfig: {**QUICK_DAE, "hidden_dims": [16]},
    RecVAEConfig: QUICK_REC,
    VampVAEConfig: {**QUICK_VAE, "name": "vamp-vae", "components": 5},
    LinearPathVAEConfig: {**QUICK_VAE, "name": "linear-path-vae"},
    LinearPathRecVAEConfig: {**QUICK_REC, "name": "linear-path-recvae"},
    EaseConfig: {"name": "ease", "l2": 10},
    PopularityConfig: {"name": "popularity"},
    MostWatchedConfig: {"name": "most-watched"},
    ItemKnnConfig: {"name": "item-knn", "neighbours": 10},
    Rp3BetaConfig: {"name": "rp3beta", "neighbours": 10},
    SlimConfig: {"name": "slim", "l1": 1.0, "l2": 10.0},
    IalsConfig: {"name": "ials", "factors": 8},
    GfCfConfig: {"name": "gf-cf", "rank": 8},
    BspmConfig: {"name": "bspm", "rank": 8},
}
BASE_TRAINING = {
    **QUICK, "epochs": 12, "learning_rate": 0.05, "patience": 5, "start": "spectral"
}  # fmt: skip

OTHER_VAE: dict[str, Any] = {
    "name": None,
    "pia": 0.3,
    "hidden_dims": [17],
    "latent_dim": 7,
    "keep_prob": 0.6,
    "beta": 0.3,
    "anneal_steps": 6,
}
OTHER_REC: dict[str, Any] = {
    "name": None,
    "pia": 0.3,
    "hidden_dim": 17,
    "latent_dim": 7,
    "keep_prob": 0.6,
    "gamma": 0.006,
    "encoder_epochs": 3,
    "decoder_epochs": 2,
}
OTHER_PATH: dict[str, Any] = {
    "path": {"name": "ease", "l2": 11},
    "path_weight": 3.0,
    "path_activity": 0.4,
}
OTHER: dict[type[StrictConfig], dict[str, Any]] = {
    MultVAEConfig: OTHER_VAE,
    RecVAEConfig: OTHER_REC,
    VampVAEConfig: {**OTHER_VAE, "components": 6, "gated": True},
    LinearPathVAEConfig: {**OTHER_VAE, **OTHER_PATH},
    LinearPathRecVAEConfig: {**OTHER_REC, **OTHER_PATH},
    MultDAEConfig: {"name": None, "hidden_dims": [17], "latent_dim": 7, "keep_prob": 0.6},
    EaseConfig: {"name": None, "l2": 11, "popularity_exponent": 0.2},
    PopularityConfig: {"name": None},
    MostWatchedConfig: {"name": None, "half_life_days": 3.0, "segments": 2},
    ItemKnnConfig: {"name": None, "neighbours": 11, "shrinkage": 5.0, "weighting": "none"},
    Rp3BetaConfig: {"name": None, "neighbours": 11, "alpha": 0.7, "beta": 0.3},
    SlimConfig: {"name": None, "l1": 1.1, "l2": 11.0, "nonnegative": False},
    IalsConfig: {
        "name": None,
        "factors": 9,
        "regularization": 11.0,
        "alpha": 11.0,
        "iterations": 14,
        "seed": 1,
    },
    GfCfConfig: {"name": None, "rank": 9, "ideal_weight": 0.4},
    BspmConfig: {"name": None, "rank": 9, "ideal_weight": 0.4, "time": 2.0, "steps": 2},
    TrainingConfig: {
        "epochs": 2,
        "batch_size": 51,
        "learning_rate": 0.051,
        "weight_decay": 0.001,
        "metric": "recall@10",
        "validate_every": 2,
        "patience": 1,
        "chunk_items": 16,
        "sampled_items": 20,
        "start": "random",
        "start_rank": 1,
        "shrink": 0.5,
        "average": 0.2,
        "implicit_slim": 2,
        "slim_l2": 5.0,
        "sparse_updates": True,
        "seed": 1,
    },
}
"""Another value of every field; for a model's name, every other model."""

FIELDS: list[tuple[type[StrictConfig], str]] = [
    (kind, field) for kind in OTHER for field in kind.model_fields
]


def observed(values: dict[str, Any], out: Path) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    asked = RunConfig.of(values)
    is_warm = asked.training.start == "warm"
    parent = train(DATA, config(OVERFITTING, epochs=1)) if is_warm else None
    model = train(DATA, asked, out=out, warm_from=parent)
    # The reported values alone, not what they are called: a metric under a new name is not another
    # metric.
    history = untimed(read_history(out)) if (out / "history.jsonl").exists() else []
    return {**weights_of(model), "scores": model.score(DATA.train[:20])}, [
        {**entry, "validation": list(entry.get("validation", {}).values())} for entry in history
    ]


def differ(
    one: tuple[dict[str, Tensor], list[Any]], other: tuple[dict[str, Tensor], list[Any]]
) -> bool:
    same = one[0].keys() == other[0].keys() and all(
        torch.equal(value, other[0][name]) for name, value in one[0].items()
    )
    return not same or one[1] != other[1]


def test_every_model_has_its_fields_changed() -> None:
    annotation = RunConfig.model_fields["model"].annotation
    assert set(get_args(annotation)) == set(BASE) == set(OTHER) - {TrainingConfig}


@pytest.mark.parametrize(
    ("kind", "field"), FIELDS, ids=[f"{kind.__name__}.{field}" for kind, field in FIELDS]
)
def test_changing_any_config_field_changes_something(
    kind: type[StrictConfig], field: str, tmp_path: Path
) -> None:
    assert field in OTHER[kind], f"{kind.__name__}.{field} is new: give it another value in OTHER"
    changed: list[dict[str, Any]]
    if kind is TrainingConfig:
        # Only weights that are carried over can be shrunk, and only a linear model has a ridge.
        needed: dict[str, dict[str, Any]] = {
            "shrink": {"start": "warm"},
            "slim_l2": {"implicit_slim": 1},
        }
        base = {**BASE_TRAINING, **needed.get(field, {})}
        values = {"model": OVERFITTING, "training": base}
        changed = [{**values, "training": {**base, field: OTHER[kind][field]}}]
    else:
        training = {} if issubclass(kind, ClosedFormConfig) else {"training": QUICK}
        values = {"model": BASE[kind], **training}
        changed = [{"model": {**BASE[kind], field: OTHER[kind][field]}, **training}]
        if field == "name":
            changed = [{"model": model} for other, model in BASE.items() if other is not kind]
    before = observed(values, tmp_path / "before")
    assert not differ(before, observed(values, tmp_path / "again")), "the run is not reproducible"
    for number, one in enumerate(changed):
        assert differ(before, observed(one, tmp_path / f"after{number}"))


# What training is for.

SERVICE = SimulatedService(n_users=1500, n_items=120, seed=4, n_niches=6)
PLANTED = SERVICE.dataset(held_out_users=200)
LONGER = {
    "epochs": 30,
    "batch_size": 100,
    "learning_rate": 3e-3,
    "metric": "ndcg@20",
    "patience": 30,
}
PLANTED_MODELS: dict[str, dict[str, Any]] = {
    "popularity": {"model": {"name": "popularity"}},
    "ease": {"model": {"name": "ease", "l2": 100}},
    "item-knn": {"model": {"name": "item-knn", "neighbours": 60}},
    "rp3beta": {"model": {"name": "rp3beta", "neighbours": 60, "alpha": 1.0, "beta": 0.5}},
    "slim": {"model": {"name": "slim", "l2": 300, "nonnegative": False}},
    "ials": {"model": {"name": "ials", "factors": 12, "alpha": 5.0, "regularization": 30}},
    "gf-cf": {"model": {"name": "gf-cf", "rank": 12}},
    "bspm": {"model": {"name": "bspm", "rank": 12}},
    "mult-dae": {"model": {"name": "mult-dae", "latent_dim": 16}, "training": LONGER},
    "mult-vae": {
        "model": {"name": "mult-vae", "hidden_dims": [48], "latent_dim": 16, "anneal_steps": 200},
        "training": LONGER,
    },
    "vamp-vae": {
        "model": {
            "name": "vamp-vae",
            "hidden_dims": [48],
            "latent_dim": 16,
            "anneal_steps": 200,
            "components": 30,
            "gated": True,
        },
        "training": LONGER,
    },
    "mult-vae+pia": {
        "model": {
            "name": "mult-vae",
            "hidden_dims": [48],
            "latent_dim": 16,
            "anneal_steps": 200,
            "pia": 0.3,
        },
        "training": LONGER,
    },
}


@pytest.fixture(scope="module")
def planted() -> dict[str, TrainedModel]:
    return {name: train(PLANTED, RunConfig.of(values)) for name, values in PLANTED_MODELS.items()}


def ndcg(model: Any) -> float:
    return evaluate(model, PLANTED.cases(Part.TEST), metrics=["ndcg@20"]).mean("ndcg@20")


@pytest.mark.parametrize("name", [name for name in PLANTED_MODELS if name != "popularity"])
def test_train_finds_the_planted_structure(planted: dict[str, TrainedModel], name: str) -> None:
    assert ndcg(planted[name]) > 1.3 * ndcg(planted["popularity"])


@pytest.mark.parametrize("name", list(PLANTED_MODELS))
def test_trained_models_keep_the_scorers_contract(
    planted: dict[str, TrainedModel], name: str
) -> None:
    check_scorer(planted[name], random_histories(12, PLANTED.n_items, 0))
    if name != "popularity":
        check_recommender(planted[name])


def test_anchors_of_one_niche_gather() -> None:
    asked = RunConfig.of(PLANTED_MODELS["mult-vae+pia"])
    assert isinstance(asked.model, MultVAEConfig)
    step, rows = (
        TrainingStep(PLANTED.n_items, asked.model, asked.training),
        SparseRows.from_csr(PLANTED.train),
    )
    assert step.anchors is not None
    niche = SERVICE.catalogue.niche[
        np.asarray(PLANTED.items.ids_of(range(PLANTED.n_items)), dtype=np.int64) - 1
    ]
    same = niche[:, None] == niche[None, :]

    def ratio() -> float:
        assert step.anchors is not None
        distance = torch.cdist(step.anchors.detach(), step.anchors.detach()).numpy()
        return float(
            distance[same & ~np.eye(len(niche), dtype=bool)].mean() / distance[~same].mean()
        )

    before = ratio()
    for epoch in range(30):
        for users in torch.split(torch.randperm(len(rows), generator=seeded(0, ORDER, epoch)), 100):
            step(rows.take(users))
    assert before == pytest.approx(1, abs=0.03)
    assert ratio() < 0.8


def test_run_folder_keeps_the_anchors_of_the_best_epoch(tmp_path: Path) -> None:
    asked = {**OVERFITTING, "pia": 0.5}
    best = train(
        DATA, config(asked, epochs=15, learning_rate=0.05), out=tmp_path / "long"
    ).provenance["best_epoch"]
    train(DATA, config(asked, epochs=best, learning_rate=0.05), out=tmp_path / "short")
    of_best, last = read_anchors(tmp_path / "long"), read_anchors(tmp_path / "short")
    assert best < 15
    assert of_best is not None
    assert last is not None
    assert of_best.shape == (DATA.n_items, asked["latent_dim"])
    assert torch.equal(of_best, last)
    train(DATA, config(OVERFITTING, epochs=1), out=tmp_path / "plain")
    assert read_anchors(tmp_path / "plain") is None


def test_damaged_anchors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "anchors.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ArtifactError, match="not a whole file of anchors"):
        read_anchors(tmp_path)


def test_train_uses_the_networks_it_names(planted: dict[str, TrainedModel]) -> None:
    assert isinstance(planted["mult-vae"].network, MultVAE)
    assert isinstance(planted["mult-dae"].network, MultDAE)


def test_tensorboard_events_tell_the_history(tmp_path: Path) -> None:
    with tensorboard_events(tmp_path) as progress:
        train(DATA, config(epochs=3), out=tmp_path, progress=progress)
    events = EventAccumulator(str(tmp_path)).Reload()
    history = read_history(tmp_path)
    for name in ("nll", "kl", "beta"):
        assert [event.value for event in events.Scalars(name)] == pytest.approx(
            [entry[name] for entry in history]
        )
    (metric,) = history[0]["validation"]
    assert [event.value for event in events.Scalars(metric)] == pytest.approx(
        [entry["validation"][metric] for entry in history]
    )
    assert [event.step for event in events.Scalars("nll")] == [entry["epoch"] for entry in history]
