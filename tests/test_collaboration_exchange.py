"""Exchange between users against gradients that autograd writes out, one user at a time."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from coterie.config import RunConfig
from coterie.errors import ConfigError, NumericalError
from coterie.lab.collaboration import exchange as exchange_module
from coterie.lab.collaboration.exchange import PARTS, Part, exchange, part_of, point_gradients
from coterie.lab.collaboration.hidden import hidden_nll
from coterie.lab.collaboration.latent_unit import in_unit
from coterie.lab.collaboration.losses import (
    HiddenItems,
    Reconstruction,
    Side,
    drawn_as_trained,
    mean_path,
    whole_objective,
)
from coterie.lab.collaboration.transfer import repeat_rows
from coterie.models.kinds import AlignedConfig
from coterie.networks.autoencoder import VariationalAutoencoder, input_scale
from coterie.objectives.divergence import composite_log_density, gaussian_kl, sampled_kl
from coterie.sparse import SparseRows
from test_sparse import sparse, to_dense

N_ITEMS, LATENT = 17, 3
MODELS: dict[str, dict[str, Any]] = {
    "mult-vae ()": {"name": "mult-vae", "hidden_dims": [], "beta": 0.3},
    "mult-vae (7,)": {"name": "mult-vae", "hidden_dims": [7], "beta": 0.3},
    "mult-vae (7, 5) + PIA": {"name": "mult-vae", "hidden_dims": [7, 5], "beta": 0.3, "pia": 0.7},
    "recvae": {"name": "recvae", "hidden_dim": 6, "gamma": 0.02},
    "recvae + PIA": {"name": "recvae", "hidden_dim": 6, "gamma": 0.02, "pia": 0.7},
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config(kind: str) -> AlignedConfig:
    model = RunConfig.of({"model": MODELS[kind] | {"latent_dim": LATENT}}).model
    assert isinstance(model, AlignedConfig)
    return model


def network_of(model: AlignedConfig, seed: int = 0) -> VariationalAutoencoder:
    """In float64, with weights large enough that all terms matter."""
    network = model.build(N_ITEMS, generator(seed)).double()
    for value in network.parameters():
        value.data.normal_(0, len(value) ** -0.25, generator=generator(seed + 1))
    assert isinstance(network, VariationalAutoencoder)
    return network


def anchors_of(model: AlignedConfig) -> Tensor | None:
    drawn = torch.randn(N_ITEMS, LATENT, generator=generator(5), dtype=torch.float64)
    return drawn if model.pia else None


def histories(n_users: int, seed: int) -> SparseRows:
    dense = np.random.default_rng(seed).random((n_users, N_ITEMS)) < 0.3
    dense[np.arange(n_users), np.arange(n_users) % N_ITEMS] = True
    return sparse(dense.astype(float))


def shown_and_hidden(n_users: int) -> tuple[SparseRows, SparseRows]:
    together = histories(n_users, 3)
    odd = torch.arange(len(together.indices)) % 3 == 0
    return together.where(~odd), together.where(odd)


class Situation:
    """A network, people to help, and people to take steps on."""

    def __init__(self, kind: str, n_draws: int = 2) -> None:
        self.model = config(kind)
        self.network, self.anchors = network_of(self.model), anchors_of(self.model)
        self.shown, self.hidden = shown_and_hidden(4)
        self.rows = histories(5, 7)
        objective = whole_objective(self.model, self.network, self.rows, self.anchors)
        self.others = drawn_as_trained(objective, LATENT, 0.6, n_draws, generator(2))
        if self.others.noise is not None:
            self.others = replace(self.others, noise=self.others.noise.double())

    def users(self, loss: str) -> Side:
        if loss == "hidden":
            return mean_path(self.shown, HiddenItems(self.shown, self.hidden))
        return mean_path(self.shown, Reconstruction(self.shown))

    def user_gradients(self, loss: str) -> dict[Part, Tensor]:
        """By autograd, from losses written a second time."""
        found = []
        for u in range(len(self.shown)):
            mu, _ = self.network.posterior(self.shown.take(torch.tensor([u])))
            logits = self.network.decode(mu)[0]
            x, y = (torch.from_numpy(to_dense(one))[u] for one in (self.shown, self.hidden))
            open_logits = logits.masked_fill(x > 0, -1e300) if loss == "hidden" else logits
            wanted = y if loss == "hidden" else x
            found.append(self.written_out(-(wanted * open_logits.log_softmax(dim=0)).sum()))
        return stacked(found)

    def other_gradients(self) -> dict[Part, Tensor]:
        """By autograd, the mean over draws of the whole objective."""
        found, n = [], self.others.n_draws
        for v in range(len(self.rows)):
            points = [self.objective(v, p) for p in range(v * n, (v + 1) * n)]
            found.append(self.written_out(torch.stack(points).mean()))
        return stacked(found)

    def objective(self, v: int, point: int) -> Tensor:
        seen, here = self.others.seen.take(torch.tensor([point])), slice(point, point + 1)
        mu, logvar = self.network.posterior(seen, self.others.scale[here].double())
        noise = 0 if self.others.noise is None else self.others.noise[here]
        z = mu + (logvar / 2).exp() * noise
        x = torch.from_numpy(to_dense(self.rows))[v]
        nll = -(x * self.network.decode(z)[0].log_softmax(dim=0)).sum()
        loss = nll + self.divergence(z, mu, logvar, v)
        if self.anchors is not None:
            apart = z.new_zeros(())
            for anchor in self.anchors[x > 0]:
                apart = apart + ((mu - anchor) ** 2).sum() + logvar.exp().sum()
            loss = loss + self.model.pia * apart / x.sum()
        return loss

    def divergence(self, z: Tensor, mu: Tensor, logvar: Tensor, v: int) -> Tensor:
        if self.model.name == "mult-vae":
            return self.model.kl_weight * gaussian_kl(mu, logvar).sum()
        rows = self.rows.take(torch.tensor([v]))
        with torch.no_grad():
            earlier = self.network.posterior(rows)
        kl = sampled_kl(z, mu, logvar, composite_log_density(z, *earlier))
        return self.model.kl_weight * rows.counts[0] * kl.sum()

    def written_out(self, loss: Tensor) -> dict[str, Tensor]:
        named = dict(self.network.named_parameters())
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        return {
            name: torch.zeros_like(value) if gradient is None else gradient
            for (name, value), gradient in zip(named.items(), found, strict=True)
        }


def stacked(gradients: list[dict[str, Tensor]]) -> dict[Part, Tensor]:
    """``[n, n_parameters]`` by part."""
    return {
        part: torch.stack(
            [
                torch.cat(
                    [
                        value.flatten()
                        for name, value in one.items()
                        if part in ("all", part_of(name))
                    ]
                )
                for one in gradients
            ]
        )
        for part in PARTS
    }


def assert_near(found: np.ndarray, expected: Tensor) -> None:
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("loss", ["hidden", "reconstruction"])
@pytest.mark.parametrize("kind", MODELS)
def test_exchange_is_what_autograd_gives_pair_by_pair(kind: str, loss: str) -> None:
    here = Situation(kind)
    found = exchange(here.network, here.users(loss), here.others)
    mine, theirs = here.user_gradients(loss), here.other_gradients()
    for part in PARTS:
        products = mine[part] @ theirs[part].t()
        sizes = torch.outer(mine[part].norm(dim=1), theirs[part].norm(dim=1))
        assert_near(found.transfer(part), products)
        assert_near(found.cosine(part), products / sizes)


@pytest.mark.parametrize("kind", MODELS)
def test_exchange_scaled_by_adam_is_what_autograd_gives(kind: str) -> None:
    here = Situation(kind)
    moments = {
        name: torch.rand(value.shape, generator=generator(9), dtype=torch.float64)
        for name, value in here.network.named_parameters()
    }
    found = exchange(here.network, here.users("hidden"), here.others, second_moments=moments)
    mine, theirs = here.user_gradients("hidden"), here.other_gradients()
    scales = stacked([{name: 1 / (one.sqrt() + 1e-8) for name, one in moments.items()}])
    for part in PARTS:
        steps = theirs[part] * scales[part]
        products = mine[part] @ steps.t()
        assert_near(found.transfer(part), products)
        sizes = torch.outer(mine[part].norm(dim=1), steps.norm(dim=1))
        assert_near(found.cosine(part), products / sizes)


def test_exchange_on_the_mean_path_needs_no_noise() -> None:
    here = Situation("mult-vae (7, 5) + PIA", n_draws=0)
    assert here.others.noise is None
    found = exchange(here.network, here.users("hidden"), here.others)
    expected = here.user_gradients("hidden")["all"] @ here.other_gradients()["all"].t()
    assert_near(found.transfer("all"), expected)


def test_exchange_is_the_same_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Situation("mult-vae (7,)")
    at_once = exchange(here.network, here.users("hidden"), here.others)
    monkeypatch.setattr(exchange_module, "BYTES_AT_ONCE", 1)
    in_blocks = exchange(here.network, here.users("hidden"), here.others)
    np.testing.assert_allclose(in_blocks.transfer(), at_once.transfer(), rtol=1e-10)


def test_exchange_foretells_what_a_real_step_does_to_hidden_items() -> None:
    here = Situation("mult-vae (7, 5) + PIA")
    found = exchange(here.network, here.users("hidden"), here.others)
    theirs, rate = here.other_gradients()["all"], 1e-6

    def losses() -> Tensor:
        with torch.no_grad():
            logits = here.network.decode(here.network.point(here.shown))
            return hidden_nll(logits, here.shown, here.hidden)

    before, flat = losses(), torch.nn.utils.parameters_to_vector(here.network.parameters())
    for v in range(len(theirs)):
        torch.nn.utils.vector_to_parameters(flat - rate * theirs[v], here.network.parameters())
        change = (losses() - before) / -rate
        torch.nn.utils.vector_to_parameters(flat, here.network.parameters())
        torch.testing.assert_close(
            change, torch.from_numpy(found.transfer()[:, v]), rtol=1e-3, atol=1e-3
        )


def test_pia_moves_the_encoder_alone() -> None:
    """The gradient of L_A is 0 over the decoder: a measure there cannot see it."""
    here = Situation("mult-vae (7, 5) + PIA")
    plain = here.model.model_copy(update={"pia": 0.0})
    objective = whole_objective(plain, here.network, here.rows, None)
    without = replace(
        here.others, loss=drawn_as_trained(objective, LATENT, 0.6, 2, generator(2)).loss
    )
    with_pia, bare = (
        exchange(here.network, here.users("hidden"), side) for side in (here.others, without)
    )
    np.testing.assert_allclose(with_pia.transfer("decoder"), bare.transfer("decoder"))
    assert not np.allclose(with_pia.transfer("encoder"), bare.transfer("encoder"))


def test_hidden_nll_leaves_out_what_was_shown_and_is_a_sum() -> None:
    shown, hidden = shown_and_hidden(4)
    logits = torch.randn(4, N_ITEMS, generator=generator())
    found = hidden_nll(logits, shown, hidden)
    x, y = to_dense(shown), to_dense(hidden)
    for u in range(4):
        scores = np.exp(logits[u].double().numpy())
        total = scores[x[u] == 0].sum()
        assert found[u].item() == pytest.approx(-np.log(scores[y[u] > 0] / total).sum(), rel=1e-5)


def test_exchange_refuses_what_it_cannot_measure() -> None:
    here = Situation("mult-vae (7, 5) + PIA")
    with pytest.raises(ConfigError, match="anchors"):
        whole_objective(here.model, here.network, here.rows, None)
    vamp = RunConfig.of({"model": {"name": "vamp-vae", "hidden_dims": [7], "latent_dim": 3}}).model
    assert isinstance(vamp, AlignedConfig)
    with pytest.raises(ConfigError, match="prior"):
        whole_objective(vamp, here.network, here.rows, None)
    with pytest.raises(ConfigError, match="second moment"):
        exchange(here.network, here.users("hidden"), here.others, second_moments={})
    here.network.register_parameter("strange", torch.nn.Parameter(torch.zeros(1)))
    with pytest.raises(ConfigError, match="strange"):
        exchange(here.network, here.users("hidden"), here.others)


def test_exchange_refuses_damaged_weights() -> None:
    here = Situation("mult-vae (7,)")
    here.network.output.weight.data[0, 0] = torch.nan
    with pytest.raises(NumericalError, match="damaged"):
        exchange(here.network, here.users("hidden"), here.others)


@pytest.mark.parametrize("kind", ["mult-vae ()", "mult-vae (7,)"])
def test_cosines_over_all_parameters_depend_on_the_unit_of_the_latent_space(kind: str) -> None:
    """The same model in another unit says the same of everybody; its encoder's gradients are
    longer, so it takes a larger part over all parameters.
    """
    here = Situation(kind)
    other = in_unit(here.network, 5.0)
    mine, its = (
        network.posterior(here.shown, input_scale(here.shown.counts).double())
        for network in (here.network, other)
    )
    torch.testing.assert_close(its[0] * 5, mine[0])
    torch.testing.assert_close((its[1] / 2).exp() * 5, (mine[1] / 2).exp())
    torch.testing.assert_close(other.score(here.shown), here.network.score(here.shown))
    model = here.model.model_copy(update={"beta": 0.0})
    found = []
    for network in (here.network, other):
        objective = whole_objective(model, network, here.rows, None)
        side = replace(here.others, loss=replace(objective, rows=repeat_rows(here.rows, 2)))
        found.append(exchange(network, here.users("hidden"), side))
    shares = [
        one.user_norms["encoder"] / np.hypot(one.user_norms["encoder"], one.user_norms["decoder"])
        for one in found
    ]
    assert (shares[1] > shares[0]).all()
    assert not np.allclose(found[0].cosine("all"), found[1].cosine("all"), rtol=0.05)


def test_the_whole_objective_is_the_same_in_any_unit() -> None:
    """KL and PIA are met in the unit of prior and anchors: over all layers but the two that were
    changed the steps are the same.
    """
    here, unit = Situation("mult-vae (7, 5) + PIA"), 5.0
    other = in_unit(here.network, unit)
    found = []
    for network, one in ((here.network, 1.0), (other, unit)):
        objective = whole_objective(here.model, network, here.rows, here.anchors)
        loss = replace(objective, rows=repeat_rows(here.rows, 2), unit=one)
        found.append(point_gradients(network, replace(here.others, loss=loss)))
    for mine, its in zip(*found, strict=True):
        if mine.layer in ("output", "input", "decoder.1", "encoder.0"):
            for (name, gradient), same in zip(
                mine.mean().items(), its.mean().values(), strict=True
            ):
                torch.testing.assert_close(gradient, same, rtol=1e-6, atol=1e-8, msg=name)


def test_another_unit_is_refused_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match="mult-vae"):
        in_unit(Situation("recvae").network, 2.0)
    with pytest.raises(ConfigError, match="above 0"):
        in_unit(Situation("mult-vae ()").network, 0.0)
