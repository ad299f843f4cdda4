"""The networks against plain dense layers, written here a second time."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from coterie.models.multdae import MultDAEConfig
from coterie.models.multvae import MultVAEConfig
from coterie.networks.autoencoder import Autoencoder, input_scale
from coterie.networks.multdae import MultDAE
from coterie.networks.multvae import MultVAE
from test_sparse import DEVICES, random_dense, sparse

N_ITEMS = 30
SMALL_VAE = MultVAEConfig(hidden_dims=(12, 7), latent_dim=4)
SMALL_DAE = MultDAEConfig(hidden_dims=(12, 7), latent_dim=4)


def vae(n_items: int = N_ITEMS, config: MultVAEConfig = SMALL_VAE, seed: int = 0) -> MultVAE:
    return config.build(n_items, torch.Generator().manual_seed(seed))


def dae(n_items: int = N_ITEMS, config: MultDAEConfig = SMALL_DAE, seed: int = 0) -> MultDAE:
    return config.build(n_items, torch.Generator().manual_seed(seed))


class DenseLayers(nn.Module):
    """Encoder and decoder as two stacks of ``nn.Linear`` with the weights of a network, fed dense
    rows.
    """

    def __init__(self, network: Autoencoder) -> None:
        super().__init__()
        weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.encoder = nn.Sequential(
            *_with_tanh(
                [
                    _linear(weights["input.weight"].t(), weights["input.bias"]),
                    *_stack(weights, "encoder"),
                ]
            )
        )
        self.decoder = nn.Sequential(
            *_with_tanh(
                [
                    *_stack(weights, "decoder"),
                    _linear(weights["output.weight"], weights["output.bias"]),
                ]
            )
        )


def _with_tanh(layers: list[nn.Linear]) -> Iterator[nn.Module]:
    for number, layer in enumerate(layers):
        yield from [layer] if number == 0 else [nn.Tanh(), layer]


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    layer.weight, layer.bias = (
        nn.Parameter(weight.clone(memory_format=torch.contiguous_format)),
        nn.Parameter(bias.clone()),
    )
    return layer


def _stack(weights: dict[str, Tensor], name: str) -> list[nn.Linear]:
    n_layers = sum(key.startswith(name) and key.endswith("weight") for key in weights)
    return [
        _linear(weights[f"{name}.{i}.weight"], weights[f"{name}.{i}.bias"]) for i in range(n_layers)
    ]


def normalized(x: Tensor) -> Tensor:
    norm: Tensor = x.square().sum(dim=1, keepdim=True).sqrt()
    return x / norm.clamp(min=1e-30)


# Shapes and initial weights.


@pytest.mark.parametrize("hidden_dims", [(), (6,), (9, 5)])
@pytest.mark.parametrize("kind", ["vae", "dae"])
def test_layers_mirror_the_hidden_dims_around_the_latent_dim(
    kind: str, hidden_dims: tuple[int, ...]
) -> None:
    network: Autoencoder
    if kind == "vae":
        network = vae(config=MultVAEConfig(hidden_dims=hidden_dims, latent_dim=4))
    else:
        network = dae(config=MultDAEConfig(hidden_dims=hidden_dims, latent_dim=4))
    layers = DenseLayers(network)
    code = 8 if kind == "vae" else 4
    into, out = (
        [tuple(p.shape) for p in part.parameters() if p.ndim == 2]
        for part in (layers.encoder, layers.decoder)
    )
    assert into == [(b, a) for a, b in pairwise([N_ITEMS, *hidden_dims, code])]
    assert out == [(b, a) for a, b in pairwise([4, *reversed(hidden_dims), N_ITEMS])]
    assert network.item_vectors().shape == (N_ITEMS, [4, *reversed(hidden_dims)][-1])


def test_default_mult_vae_is_the_papers() -> None:
    shapes = {
        name: tuple(value.shape) for name, value in vae(1000, MultVAEConfig()).named_parameters()
    }
    assert shapes == {
        "input.weight": (1000, 600),
        "input.bias": (600,),
        "encoder.0.weight": (400, 600),
        "encoder.0.bias": (400,),
        "decoder.0.weight": (600, 200),
        "decoder.0.bias": (600,),
        "output.weight": (1000, 600),
        "output.bias": (1000,),
    }


def test_default_mult_dae_is_the_papers() -> None:
    shapes = {
        name: tuple(value.shape) for name, value in dae(1000, MultDAEConfig()).named_parameters()
    }
    assert shapes == {
        "input.weight": (1000, 200),
        "input.bias": (200,),
        "output.weight": (1000, 200),
        "output.bias": (1000,),
    }


def test_initial_weights_are_xavier_normal_and_biases_small() -> None:
    for name, value in vae(1000, MultVAEConfig()).named_parameters():
        spread = 0.001 if name.endswith("bias") else (2 / sum(value.shape)) ** 0.5
        error = spread / value.numel() ** 0.5
        assert float(value.detach().std()) == pytest.approx(spread, abs=5 * error), name
        assert float(value.detach().mean()) == pytest.approx(0, abs=5 * error), name
        # A uniform law of the same spread ends at 1.73 of it.
        assert value.detach().abs().max() > 2 * spread, name


def test_initial_weights_follow_their_generator_alone() -> None:
    torch.manual_seed(0)
    one, again, other = vae(seed=1).state_dict(), vae(seed=1).state_dict(), vae(seed=2).state_dict()
    for name, value in one.items():
        assert torch.equal(value, again[name])
        assert not torch.equal(value, other[name])


# The forward pass.


def test_input_scale_is_one_over_the_norm() -> None:
    scale = input_scale(torch.tensor([0, 1, 4, 100]))
    assert scale.tolist() == pytest.approx([1.0, 1.0, 0.5, 0.1])
    assert scale.dtype == torch.float32


@pytest.mark.parametrize("device", DEVICES)
def test_posterior_is_that_of_dense_layers(device: str) -> None:
    network, x = vae().double(), torch.from_numpy(random_dense(15, N_ITEMS, 0))
    rows = sparse(x.numpy(), device)
    code = DenseLayers(network).encoder(normalized(x))
    # The scale in float64 too, so that only the order of sums differs.
    exact = rows.counts.clamp(min=1).double().rsqrt()
    mu, logvar = network.to(device).posterior(rows, exact)
    torch.testing.assert_close(mu.cpu(), code[:, :4], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(logvar.cpu(), code[:, 4:], rtol=1e-12, atol=1e-12)


def test_posterior_of_a_scaled_input_is_that_of_dense_layers() -> None:
    network, x = vae().double(), torch.from_numpy(random_dense(15, N_ITEMS, 0))
    scale = torch.linspace(0.1, 3, 15, dtype=torch.float64)
    mu, logvar = network.posterior(sparse(x.numpy()), scale)
    torch.testing.assert_close(
        torch.cat([mu, logvar], dim=1),
        DenseLayers(network).encoder(x * scale[:, None]),
        rtol=1e-12,
        atol=1e-12,
    )


@pytest.mark.parametrize("hidden_dims", [(), (6,), (9, 5)])
def test_mult_vae_scores_are_those_of_dense_layers_at_the_mean(
    hidden_dims: tuple[int, ...],
) -> None:
    network = vae(config=MultVAEConfig(hidden_dims=hidden_dims, latent_dim=4)).double()
    layers, x = DenseLayers(network), torch.from_numpy(random_dense(15, N_ITEMS, 0))
    mu, _ = layers.encoder(normalized(x)).chunk(2, dim=1)
    torch.testing.assert_close(
        network.score(sparse(x.numpy())), layers.decoder(mu), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("hidden_dims", [(), (6,), (9, 5)])
def test_mult_dae_scores_are_those_of_dense_layers(hidden_dims: tuple[int, ...]) -> None:
    network = dae(config=MultDAEConfig(hidden_dims=hidden_dims, latent_dim=4)).double()
    layers, x = DenseLayers(network), torch.from_numpy(random_dense(15, N_ITEMS, 0))
    code = torch.tanh(layers.encoder(normalized(x)))
    torch.testing.assert_close(network.point(sparse(x.numpy())), code, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        network.score(sparse(x.numpy())), layers.decoder(code), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("network", [vae(), dae()], ids=["mult-vae", "mult-dae"])
def test_score_draws_nothing(network: MultVAE | MultDAE) -> None:
    rows = sparse(random_dense(9, N_ITEMS, 0))
    # In training mode: a dropout layer or a sampled z would show.
    before = torch.get_rng_state()
    one, again = network.train().score(rows), network.train().score(rows)
    assert torch.equal(one, again)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("network", [vae(), dae()], ids=["mult-vae", "mult-dae"])
def test_score_of_an_empty_history_is_that_of_a_zero_input(network: MultVAE | MultDAE) -> None:
    score = network.score(sparse(np.zeros((1, N_ITEMS))))
    layers, zero = DenseLayers(network), torch.zeros(1, N_ITEMS)
    code = layers.encoder(zero)
    expected = layers.decoder(code[:, :4] if isinstance(network, MultVAE) else torch.tanh(code))
    assert score.isfinite().all()
    torch.testing.assert_close(score, expected)


def test_latent_dim_is_the_real_dimension() -> None:
    network = vae(config=MultVAEConfig(hidden_dims=(6,), latent_dim=5))
    mu, logvar = network.posterior(sparse(random_dense(3, N_ITEMS, 0)))
    assert mu.shape == logvar.shape == (3, 5)
    assert network.decode(torch.zeros(2, 5)).shape == (2, N_ITEMS)
    # Every dimension reaches the scores.
    moved = network.decode(torch.eye(5)) - network.decode(torch.zeros(1, 5))
    assert (moved.abs().sum(dim=1) > 0).all()
    assert dae(config=MultDAEConfig(latent_dim=5)).point(
        sparse(random_dense(3, N_ITEMS, 0))
    ).shape == (3, 5)
