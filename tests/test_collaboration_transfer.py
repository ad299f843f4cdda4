"""Gradient transfer and the sharing radius against gradients that autograd writes out."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from torch import Tensor
from torch.func import grad, vmap

from coterie.config import TrainingConfig
from coterie.errors import ConfigError, DataError, NumericalError
from coterie.lab.collaboration import transfer as transfer_module
from coterie.lab.collaboration.influence import influence_by_distance
from coterie.lab.collaboration.posteriors import Posteriors, encode_users
from coterie.lab.collaboration.sharing import (
    KINDS,
    SharingPairs,
    TheoremTable,
    broken_implications,
    content_mismatch,
    draw_pairs,
    gradient_slopes,
    lipschitz_estimate,
    lipschitz_points,
    sharing_pairs,
    theorem_table,
)
from coterie.lab.collaboration.transfer import (
    UserDraws,
    decoder_factors,
    draw_users,
    gradient_norms,
    gradient_transfer,
    pair_transfer,
)
from coterie.models.ease import EaseConfig
from coterie.models.multvae import MultVAEConfig
from coterie.models.recvae import RecVAEConfig
from coterie.networks.autoencoder import Autoencoder
from coterie.networks.linear_path import LinearPathVAE
from coterie.networks.multvae import MultVAE
from coterie.running.progress import Update
from coterie.sparse import SparseRows
from coterie.training.step import TrainingStep
from test_sparse import sparse, to_dense

N_ITEMS, LATENT = 17, 3
HIDDEN_DIMS = {"mult-vae": (), "mult-vae (7,)": (7,), "mult-vae (7, 5)": (7, 5)}
KINDS_OF_MODEL = [*HIDDEN_DIMS, "recvae"]


def generator(seed: int = 0, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def model(
    kind: str = "mult-vae (7, 5)", n_items: int = N_ITEMS, seed: int = 0, *, spread: float = 1.0
) -> Autoencoder:
    """In float64, its weights drawn anew and larger than at the start of a training, so that all
    terms matter.
    """
    if kind == "recvae":
        network: Autoencoder = RecVAEConfig(hidden_dim=6, latent_dim=LATENT).build(
            n_items, generator(seed)
        )
    else:
        network = MultVAEConfig(hidden_dims=HIDDEN_DIMS[kind], latent_dim=LATENT).build(
            n_items, generator(seed)
        )
    network.double()
    for value in network.parameters():
        value.data.normal_(0, spread * len(value) ** -0.25, generator=generator(seed + 1))
    return network


def histories(n_users: int, seed: int = 0, n_items: int = N_ITEMS) -> SparseRows:
    dense = np.random.default_rng(seed).random((n_users, n_items)) < 0.3
    dense[np.arange(n_users), np.arange(n_users) % n_items] = True
    return sparse(dense.astype(float))


def drawn(network: Autoencoder, n_users: int = 6, n_draws: int = 3, seed: int = 0) -> UserDraws:
    rows = histories(n_users, seed, network.n_items)
    return draw_users(encode_users(network, rows), rows, n_draws, generator(seed))


def decoder_of(network: Autoencoder) -> dict[str, Tensor]:
    """In the order of the layers."""
    weights = {
        name: value.detach()
        for name, value in network.named_parameters()
        if name.startswith(("decoder", "output"))
    }
    return dict(sorted(weights.items(), key=lambda item: item[0].split(".")[:-1]))


def dense_loss(weights: dict[str, Tensor], z: Tensor, x: Tensor) -> Tensor:
    """The loss written a second time, for one point and a dense history."""
    for i in range(len(weights) // 2 - 1):
        z = torch.tanh(weights[f"decoder.{i}.weight"] @ z + weights[f"decoder.{i}.bias"])
    return -(
        x * torch.log_softmax(weights["output.weight"] @ z + weights["output.bias"], dim=0)
    ).sum()


def point_gradients(network: Autoencoder, z: Tensor, rows: SparseRows) -> Tensor:
    """``[n, n_parameters]``: one gradient a point, written out."""
    found = vmap(grad(dense_loss), in_dims=(None, 0, 0))(
        decoder_of(network), z, torch.from_numpy(to_dense(rows))
    )
    return torch.cat([value.flatten(1) for value in found.values()], dim=1)


def user_gradients(
    network: Autoencoder, users: UserDraws, rows: SparseRows | None = None
) -> Tensor:
    """``[n, n_parameters]``: the mean over each user's points."""
    rows = users.rows if rows is None else rows
    return torch.stack(
        [point_gradients(network, users.z[:, s], rows) for s in range(users.n_draws)]
    ).mean(dim=0)


def assert_near(
    found: Tensor | np.ndarray, expected: Tensor | np.ndarray, rtol: float = 1e-9
) -> None:
    torch.testing.assert_close(
        torch.as_tensor(found), torch.as_tensor(expected), rtol=rtol, atol=1e-12
    )


# Transfer.


@pytest.mark.parametrize("kind", KINDS_OF_MODEL)
def test_decoder_factors_are_the_gradients_of_points(kind: str) -> None:
    network, rows, less = model(kind), histories(5, 1), histories(5, 2)
    for value in network.parameters():
        value.requires_grad_(False)
    z = torch.randn(5, LATENT, generator=generator(), dtype=torch.float64)

    def written_out(less: SparseRows | None) -> Tensor:
        parts = [
            [torch.einsum("po,pi->poi", d, h).flatten(1), d]
            for d, h in decoder_factors(network, z, rows, less)
        ]
        return torch.cat([one for layer in parts for one in layer], dim=1)

    assert_near(written_out(None), point_gradients(network, z, rows))
    assert_near(
        written_out(less), point_gradients(network, z, rows) - point_gradients(network, z, less)
    )
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("kind", KINDS_OF_MODEL)
@pytest.mark.parametrize("n_draws", [0, 1, 3])
def test_transfer_is_the_product_of_gradients(
    kind: str, n_draws: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = model(kind)
    users, others = drawn(network, 7, n_draws), drawn(network, 5, max(1, 2 * n_draws), seed=9)
    own, other = user_gradients(network, users), user_gradients(network, others)
    monkeypatch.setattr(
        transfer_module, "BYTES_AT_ONCE", 2 * users.n_draws * N_ITEMS * 8
    )  # blocks of two users and of one
    assert [len(block) for block in users.blocks()] == [2, 2, 2, 1]
    steps: list[Update] = []
    assert_near(gradient_transfer(network, users, progress=steps.append), own @ own.t())
    assert [(step.done, step.total) for step in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert_near(gradient_transfer(network, users, others), own @ other.t())
    assert_near(gradient_norms(network, users), own.norm(dim=1))
    assert_near(
        pair_transfer(network, users.take(torch.arange(5)), others), (own[:5] * other).sum(dim=1)
    )


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(KINDS_OF_MODEL), st.integers(1, 6), st.integers(1, 3), st.integers(0, 999))
def test_transfer_of_any_users(kind: str, n_users: int, n_draws: int, seed: int) -> None:
    network = model(kind, seed=seed)
    users = drawn(network, n_users, n_draws, seed)
    own = user_gradients(network, users)
    assert_near(gradient_transfer(network, users), own @ own.t(), rtol=1e-8)


@pytest.mark.parametrize("name", ["decoder.0.weight", "output.weight", "output.bias"])
def test_a_damaged_decoder_is_named(name: str) -> None:
    network = model()
    users = drawn(network)
    network.get_parameter(name).data[-1] = torch.nan
    with pytest.raises(NumericalError, match="decoder's weights are damaged"):
        gradient_transfer(network, users)


def test_transfer_in_float32_is_near() -> None:
    network = model()
    users = drawn(network)
    expected = gradient_transfer(network, users)
    found = gradient_transfer(network.float(), UserDraws(users.rows, users.z.float()))
    assert found.dtype == torch.float32
    torch.testing.assert_close(
        found.double(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_transfer_on_cuda() -> None:
    network = model()
    users = drawn(network)
    rows = SparseRows(users.rows.indices.cuda(), users.rows.offsets.cuda(), N_ITEMS)
    expected, on_device = (
        pairs_of(network, users, 20),
        pairs_of(network.cuda(), UserDraws(rows, users.z.cuda()), 20, "cuda"),
    )
    assert_near(on_device.transfer, expected.transfer)
    table = theorem_table(network, UserDraws(rows, users.z.cuda()), on_device, np.array([1e-5]))
    assert_near(table.change, table.predicted, rtol=1e-2)


def test_the_linear_path_has_no_part_in_the_loss() -> None:
    plain = model("mult-vae (7,)")
    path = EaseConfig(l2=1.0).fit(csr_array(to_dense(histories(30, 5))))
    shape = (N_ITEMS, (7,), LATENT, generator())
    with_path = LinearPathVAE(*shape, path=path, path_weight=10.0).double()
    with_path.load_state_dict(with_path.state_dict() | plain.state_dict())
    users = drawn(plain)
    assert torch.equal(gradient_transfer(with_path, users), gradient_transfer(plain, users))
    pairs = pairs_of(with_path, users, 4)
    assert_near(
        theorem_table(with_path, users, pairs, np.array([1e-4])).change,
        theorem_table(plain, users, pairs, np.array([1e-4])).change,
    )


def test_draws_of_users_are_the_posteriors() -> None:
    network, rows = model(), histories(4)
    posteriors = encode_users(network, rows)
    users = draw_users(posteriors, rows, 5000, generator())
    assert users.z.shape == (4, 5000, LATENT)
    torch.testing.assert_close(
        users.z.mean(dim=1),
        posteriors.mu,
        rtol=0,
        atol=5 / 5000**0.5 * float(posteriors.sigma.max()),
    )
    torch.testing.assert_close(users.z.std(dim=1), posteriors.sigma, rtol=0.06, atol=0)
    assert torch.equal(draw_users(posteriors, rows, 0, generator()).z[:, 0], posteriors.mu)
    with pytest.raises(ConfigError, match="n_draws must be 0"):
        draw_users(posteriors, rows, -1, generator())
    with pytest.raises(DataError, match="found 4 and 3"):
        draw_users(posteriors, histories(3), 1, generator())


# The radius and its parts.


def pairs_of(
    network: Autoencoder, users: UserDraws, n_pairs: int, device: str = "cpu", **options: Any
) -> SharingPairs:
    posteriors = encode_users(network, users.rows)
    lipschitz = lipschitz_estimate(network, posteriors, users.rows, 50, generator(device=device))
    return sharing_pairs(
        network, posteriors, users, *draw_pairs(len(users), n_pairs, 3, **options), lipschitz
    )


@pytest.mark.parametrize("kind", KINDS_OF_MODEL)
@pytest.mark.parametrize("n_draws", [1, 3])
def test_mismatch_is_the_norm_of_the_gradients_difference(kind: str, n_draws: int) -> None:
    network = model(kind)
    others, rows = drawn(network, 6, n_draws), histories(6, 8)
    expected = (user_gradients(network, others) - user_gradients(network, others, rows)).norm(dim=1)
    assert_near(content_mismatch(network, rows, others), expected)
    assert_near(content_mismatch(network, others.rows, others), torch.zeros(6, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS_OF_MODEL)
def test_lipschitz_estimate_is_the_largest_slope_between_its_points(kind: str) -> None:
    network, rows = model(kind), histories(9)
    posteriors = encode_users(network, rows)
    user, z, other = lipschitz_points(posteriors, 40, generator(4))
    difference = point_gradients(network, z, rows.take(user)) - point_gradients(
        network, other, rows.take(user)
    )
    distance = (z - other).norm(dim=1)
    assert_near(
        gradient_slopes(network, rows, user, z, other), difference.norm(dim=1) / distance, rtol=1e-7
    )
    expected = float((difference.norm(dim=1) / distance).max())
    assert lipschitz_estimate(network, posteriors, rows, 40, generator(4)) == pytest.approx(
        expected, rel=1e-9
    )
    assert distance.max() > 50 * distance.min()  # far pairs and near ones


def test_lipschitz_estimate_of_a_linear_decoder() -> None:
    network, rows = model("recvae"), histories(9)
    posteriors = encode_users(network, rows)
    _, z, other = lipschitz_points(posteriors, 60, generator(4))
    # Over a ball of radius R: ‖d(δ⊗(z,1))‖ ≤ ‖dδ‖ √(R² + 1) + ‖δ‖ ‖dz‖, with ‖dδ‖ ≤ n/2 ‖W‖ ‖dz‖
    # and ‖δ‖ ≤ n + √n.
    n, radius = int(rows.counts.max()), float(torch.cat([z, other]).norm(dim=1).max())
    slope = (
        n
        / 2
        * float(torch.linalg.matrix_norm(network.output.weight.detach(), 2))
        * (radius**2 + 1) ** 0.5
    )
    assert 0 < lipschitz_estimate(network, posteriors, rows, 60, generator(4)) <= slope + n + n**0.5
    # Without weights δ is constant and the gradient linear in z: every slope is ‖δ‖.
    network.output.weight.data.zero_()
    softmax = torch.softmax(network.output.bias.detach(), dim=0)
    delta = rows.counts.unsqueeze(1) * softmax - torch.from_numpy(to_dense(rows))
    user = lipschitz_points(posteriors, 60, generator(4))[0]
    expected = float(delta.norm(dim=1)[user].max())
    assert lipschitz_estimate(network, posteriors, rows, 60, generator(4)) == pytest.approx(
        expected, rel=1e-9
    )


def test_sharing_pairs_hold_what_they_say() -> None:
    network = model()
    users = drawn(network, 8)
    posteriors, own = encode_users(network, users.rows), user_gradients(network, users)
    pairs = pairs_of(network, users, 30)
    u, v = pairs.user, pairs.other
    assert_near(pairs.gradient_norm, own.norm(dim=1)[u])
    assert_near(pairs.other_norm, own.norm(dim=1)[v])
    assert_near(pairs.transfer, (own[u] * own[v]).sum(dim=1))
    assert_near(pairs.gradient_distance, (own[u] - own[v]).norm(dim=1), rtol=1e-6)
    at_v = UserDraws(users.rows.take(torch.from_numpy(u)), users.z[v])
    assert_near(pairs.mismatch, (own[v] - user_gradients(network, at_v)).norm(dim=1))
    gap, wide = (
        getattr(posteriors, name)[u] - getattr(posteriors, name)[v] for name in ("mu", "sigma")
    )
    assert_near(pairs.w1_low, gap.norm(dim=1))
    assert_near(pairs.w1_high, (gap.square().sum(dim=1) + wide.square().sum(dim=1)).sqrt())
    assert_near(pairs.radius, np.maximum(pairs.gradient_norm - pairs.mismatch, 0) / pairs.lipschitz)
    assert np.array_equal(pairs.inside, pairs.w1_high < pairs.radius)
    assert all(hasattr(pairs, name) for name in KINDS)
    assert set(KINDS.values()) == {"exact for the draws", "estimated", "bound"}


def test_the_bound_by_transport_holds_where_the_posterior_is_a_point() -> None:
    """At the means W1 is ‖Δmu‖, and a slope between those very points makes the bound a true
    one.
    """
    network, rows = model(), histories(8)
    posteriors = encode_users(network, rows)
    u, v = (torch.from_numpy(one) for one in draw_pairs(8, 40, 3))
    slopes = gradient_slopes(network, rows, u, posteriors.mu[u], posteriors.mu[v])
    points = Posteriors(posteriors.mu, torch.zeros_like(posteriors.sigma))
    users = draw_users(points, rows, 0, generator())
    pairs = sharing_pairs(network, points, users, u.numpy(), v.numpy(), float(slopes.max()))
    assert (
        pairs.gradient_distance <= pairs.mismatch + pairs.lipschitz * pairs.w1_high + 1e-9
    ).all()
    assert (pairs.inside <= pairs.inside_exactly).all()
    assert (pairs.inside_exactly <= (pairs.transfer > 0)).all()


def test_draw_pairs_never_pairs_a_user_with_itself() -> None:
    user, other = draw_pairs(5, 2000, seed=1)
    assert len(set(zip(user.tolist(), other.tolist(), strict=True))) == 20
    assert (user != other).all()
    with pytest.raises(DataError, match="at least two users, found 1"):
        draw_pairs(1, 5, seed=1)


def test_what_makes_no_radius_is_refused() -> None:
    network, rows = model(), histories(3)
    posteriors = encode_users(network, rows)
    same = Posteriors(posteriors.mu[:1].expand(3, -1), torch.zeros_like(posteriors.sigma))
    with pytest.raises(DataError, match="two different latent points"):
        lipschitz_estimate(network, same, rows, 10, generator())
    with pytest.raises(ConfigError, match="above 0, found 0"):
        sharing_pairs(
            network,
            posteriors,
            draw_users(posteriors, rows, 0, generator()),
            np.array([0]),
            np.array([1]),
            0.0,
        )


# The inequality that must never be broken.


def trained(config: MultVAEConfig | RecVAEConfig, rows: SparseRows, steps: int) -> Autoencoder:
    step = TrainingStep(rows.n_items, config, TrainingConfig(learning_rate=0.01))
    for number in range(steps):
        step(rows.take(torch.arange(number % 2, len(rows), 2)))
    return step.network.eval()


@pytest.mark.parametrize("steps", [0, 60])
@pytest.mark.parametrize(
    "config",
    [MultVAEConfig(hidden_dims=(12,), latent_dim=4), RecVAEConfig(hidden_dim=12, latent_dim=4)],
    ids=["mult-vae", "recvae"],
)
def test_a_gradient_nearer_than_its_length_always_helps(
    config: MultVAEConfig | RecVAEConfig, steps: int
) -> None:
    rows = histories(120, 3, n_items=40)
    network = trained(config, rows, steps)
    users = draw_users(encode_users(network, rows), rows, 2, generator())
    pairs = pairs_of(network, users, 10_000)
    assert pairs.inside_exactly.any()
    assert broken_implications(pairs.gradient_norm, pairs.gradient_distance, pairs.transfer) == 0
    # The distance from gradients that are written out knows nothing of the transfer.
    network.double()
    users = UserDraws(rows, users.z.double())
    own = user_gradients(network, users)
    distance = (own[pairs.user] - own[pairs.other]).norm(dim=1).numpy()
    transfer = gradient_transfer(network, users).numpy()[pairs.user, pairs.other]
    assert (
        broken_implications(gradient_norms(network, users).numpy()[pairs.user], distance, transfer)
        == 0
    )
    assert (
        broken_implications(np.ones(3), np.array([0.5, 0.5, 2]), np.array([0.1, -0.1, -0.1])) == 1
    )


# The theorem, by doing.


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.floats(-3, 3))
def test_the_exact_condition_judges_how_long_a_step_is(seed: int, log_length: float) -> None:
    """‖g_v - g_u‖ < ‖g_u‖ is cos > ‖g_v‖ / (2 ‖g_u‖), for any two vectors."""
    rng = np.random.default_rng(seed)
    g_u, g_v = rng.normal(size=(2, 40, 3))
    g_v *= 10**log_length
    pairs = SharingPairs(
        np.arange(40),
        np.arange(40) % 7,
        gradient_norm=np.linalg.norm(g_u, axis=1),
        other_norm=np.linalg.norm(g_v, axis=1),
        transfer=(g_u * g_v).sum(axis=1),
        mismatch=np.zeros(40),
        w1_low=np.zeros(40),
        w1_high=np.zeros(40),
        lipschitz=1.0,
    )
    inside = np.linalg.norm(g_v - g_u, axis=1) < np.linalg.norm(g_u, axis=1)
    np.testing.assert_array_equal(pairs.cosine > pairs.needed_cosine, inside)
    np.testing.assert_array_equal(pairs.inside_exactly, inside)
    assert pairs.n_others == 7
    # A step that is short enough is inside for every pair that it helps.
    short = 1.9 * pairs.cosine * pairs.gradient_norm / pairs.other_norm
    helped = pairs.transfer > 0
    apart = np.linalg.norm(short[:, None] * g_v - g_u, axis=1)
    assert (apart[helped] < pairs.gradient_norm[helped]).all()


def test_theorem_table_takes_the_real_step() -> None:
    network = model()
    users = drawn(network)
    pairs, rates = pairs_of(network, users, 12), np.array([1e-3, 0.1])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    steps: list[Update] = []
    table = theorem_table(network, users, pairs, rates, progress=steps.append)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert steps[-1].done == steps[-1].total == len(set(pairs.other))

    def losses(weights: dict[str, Tensor]) -> Tensor:
        x = torch.from_numpy(to_dense(users.rows))
        return torch.stack(
            [vmap(dense_loss, in_dims=(None, 0, 0))(weights, users.z[:, s], x) for s in range(3)]
        ).mean(dim=0)

    weights, own = decoder_of(network), user_gradients(network, users)
    for r, rate in enumerate(rates):
        for p, (u, v) in enumerate(zip(pairs.user, pairs.other, strict=True)):
            parts = torch.split(own[v], [value.numel() for value in weights.values()])
            moved = {
                name: value - rate * part.view_as(value)
                for (name, value), part in zip(weights.items(), parts, strict=True)
            }
            assert table.change[r, p] == pytest.approx(
                float(losses(moved)[u] - losses(weights)[u]), rel=1e-6, abs=1e-10
            )
    fell = table.change < 0
    for counts, inside in (
        (table.by_radius, pairs.inside),
        (table.by_distance, pairs.inside_exactly),
        (table.by_transfer, pairs.transfer > 0),
    ):
        expected = [
            [[(side & f).sum(), (side & ~f).sum()] for side in (inside, ~inside)] for f in fell
        ]
        assert counts.tolist() == np.array(expected).tolist()


@pytest.mark.parametrize("kind", KINDS_OF_MODEL)
def test_change_is_the_predicted_one_up_to_the_square_of_the_rate(kind: str) -> None:
    network = model(kind)
    users = drawn(network)
    table = theorem_table(
        network, users, pairs_of(network, users, 20, n_others=3), np.array([4e-6, 2e-6, 1e-6])
    )
    error = np.abs(table.change - table.predicted).max(axis=1)
    assert error[0] < 1e-2 * np.abs(table.predicted[0]).max()
    assert error[0] / error[1] == pytest.approx(4, rel=0.05)
    assert error[1] / error[2] == pytest.approx(4, rel=0.05)


def planted() -> tuple[MultVAE, UserDraws, TheoremTable, SharingPairs]:
    """Two clusters of users with equal items within and none in common between."""
    dense = np.zeros((8, N_ITEMS))
    dense[:4, :5], dense[4:, 9:15] = 1, 1
    network = (
        MultVAEConfig(hidden_dims=(7,), latent_dim=LATENT).build(N_ITEMS, generator()).double()
    )
    posteriors = encode_users(network, sparse(dense))
    users = draw_users(posteriors, sparse(dense), 0, generator())
    lipschitz = lipschitz_estimate(network, posteriors, users.rows, 100, generator())
    pairs = sharing_pairs(network, posteriors, users, *draw_pairs(8, 300, 1), lipschitz)
    return network, users, theorem_table(network, users, pairs, np.array([1e-4, 1e-2])), pairs


def test_users_of_one_cluster_help_each_other_and_those_of_two_do_not() -> None:
    _, _, table, pairs = planted()
    same = (pairs.user < 4) == (pairs.other < 4)
    for inside in (pairs.inside, pairs.inside_exactly, pairs.transfer > 0):
        assert np.array_equal(inside, same)
    for counts in (*table.by_radius, *table.by_distance, *table.by_transfer):
        assert counts.tolist() == [[same.sum(), 0], [0, (~same).sum()]]


# Influence against distance.


def test_influence_is_the_mean_in_quantile_bins() -> None:
    rng = np.random.default_rng(0)
    transfer, distance, norms = rng.normal(size=(9, 9)), rng.random((9, 9)), 1 + rng.random(9)
    curve = influence_by_distance(transfer, distance, norms, seed=0, n_bins=4, n_resamples=20)
    off = ~np.eye(9, dtype=bool)
    order = np.argsort(distance[off])
    parts = np.split(order, 4)
    assert curve.pairs.tolist() == [18] * 4
    assert_near(curve.distance, np.array([distance[off][part].mean() for part in parts]))
    assert_near(curve.transfer, np.array([transfer[off][part].mean() for part in parts]))
    cosine = (transfer / np.outer(norms, norms))[off]
    assert_near(curve.cosine, np.array([cosine[part].mean() for part in parts]))


@pytest.mark.parametrize("same", [True, False])
def test_influence_intervals_are_those_of_a_bootstrap_by_hand(same: bool) -> None:
    rng = np.random.default_rng(1)
    n, m = 6, 6 if same else 4
    transfer, distance, mask = rng.normal(size=(n, m)), rng.random((n, m)), rng.random((n, m)) < 0.8
    curve = influence_by_distance(
        transfer,
        distance,
        np.ones(n),
        None if same else np.ones(m),
        seed=5,
        mask=mask,
        n_bins=1,
        n_resamples=200,
    )
    draw = np.random.default_rng(5)
    counts, other_counts = (
        draw.multinomial(size, np.full(size, 1 / size), size=200) for size in (n, m)
    )
    other_counts = counts if same else other_counts
    means = []
    for drawn_users, drawn_others in zip(counts, other_counts, strict=True):
        pairs = [
            transfer[u, v]
            for u in np.repeat(np.arange(n), drawn_users)
            for v in np.repeat(np.arange(m), drawn_others)
            if mask[u, v] and not (same and u == v)
        ]
        means += [np.mean(pairs)] if pairs else []
    assert [curve.transfer_low[0], curve.transfer_high[0]] == pytest.approx(
        np.percentile(means, [2.5, 97.5]).tolist()
    )
    assert (curve.cosine_low, curve.cosine_high) == (curve.transfer_low, curve.transfer_high)


def test_influence_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Users' own effects make pairs dependent; an interval over pairs would be far too short."""
    rng, hits = np.random.default_rng(2), 0
    for seed in range(100):
        effect, other_effect = rng.normal(size=40), rng.normal(size=40)
        transfer = effect[:, None] + other_effect + rng.normal(size=(40, 40))
        curve = influence_by_distance(
            transfer,
            rng.random((40, 40)),
            np.ones(40),
            np.ones(40),
            seed=seed,
            n_bins=1,
            n_resamples=200,
        )
        hits += bool(curve.transfer_low[0] <= 0 <= curve.transfer_high[0])
    assert 86 <= hits <= 100


def test_influence_with_ties_has_fewer_bins_and_none_of_them_empty() -> None:
    transfer, norms = np.ones((6, 6)), np.zeros(6)
    distance = np.repeat([[0.0, 0, 0, 1, 1, 2]], 6, axis=0)
    curve = influence_by_distance(transfer, distance, norms, seed=0, n_bins=10, n_resamples=20)
    assert curve.edges.tolist() == [0, 1, 2]
    assert curve.pairs.tolist() == [25, 5]
    assert curve.cosine.tolist() == [0, 0]  # of no gradient
    collapsed = influence_by_distance(transfer, np.ones((6, 6)), np.ones(6), seed=0, n_resamples=20)
    assert collapsed.pairs.tolist() == [30]
    assert collapsed.transfer_low.tolist() == collapsed.transfer_high.tolist() == [1]


def test_influence_of_nobody_is_refused() -> None:
    one = np.ones((1, 1))
    with pytest.raises(DataError, match="at least one pair"):
        influence_by_distance(one, one, np.ones(1), seed=0)
    for wrong in ({"n_bins": 0}, {"n_resamples": 0}, {"confidence": 1.0}):
        with pytest.raises(ConfigError, match="must be at least 1"):
            influence_by_distance(np.ones((2, 2)), np.ones((2, 2)), np.ones(2), seed=0, **wrong)
