"""Every term of the objectives against the plain formula it stands for, values and gradients."""

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from coterie.errors import ConfigError
from coterie.networks.autoencoder import input_scale
from coterie.objectives.alignment import alignment
from coterie.objectives.divergence import gaussian_kl
from coterie.objectives.likelihood import LogitBuffer, multinomial_nll, sampled_nll
from coterie.objectives.masking import mask_items
from coterie.objectives.schedules import linear_warm_up
from coterie.sparse import SparseRows, gather_sum
from test_sparse import DEVICES, random_dense, sparse, to_dense

Leaves: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Hidden, weight and bias, or mu, logvar and anchors."""


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_leaves(seed: int, *shapes: tuple[int, ...]) -> Leaves:
    """Normal leaves that ask for gradients."""
    one, two, three = (
        draw(3 * seed + number, *shape).requires_grad_() for number, shape in enumerate(shapes)
    )
    return one, two, three


def leaves_as(
    leaves: Leaves, dtype: torch.dtype = torch.float64, device: str = "cpu", scale: float = 1.0
) -> Leaves:
    """New leaves of the same values, the first of them times ``scale``."""
    first, two, three = (leaf.detach().to(device, dtype) for leaf in leaves)
    return (first * scale).requires_grad_(), two.requires_grad_(), three.requires_grad_()


def gradients(
    function: Callable[[Tensor, Tensor, Tensor], Tensor], leaves: Leaves, upstream: Tensor
) -> tuple[Tensor, ...]:
    return torch.autograd.grad(function(*leaves), leaves, upstream)


# The multinomial likelihood.


def dense_nll(hidden: Tensor, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    return -(x * torch.log_softmax(hidden @ weight.t() + bias, dim=1)).sum(dim=1)


def likelihood_case(n_users: int, n_items: int, dim: int, seed: int) -> tuple[Leaves, np.ndarray]:
    return draw_leaves(seed, (n_users, dim), (n_items, dim), (n_items,)), random_dense(
        n_users, n_items, seed
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("n_users", "n_items", "dim"),
    [(1, 1, 1), (5, 1, 3), (4, 16, 3), (9, 17, 5), (30, 100, 8), (1, 31, 2)],
)
def test_multinomial_nll_is_the_dense_formula(
    n_users: int, n_items: int, dim: int, device: str
) -> None:
    leaves, dense = likelihood_case(n_users, n_items, dim, seed=n_items)
    leaves, upstream = leaves_as(leaves, device=device), draw(1, n_users).to(device)
    x, rows = torch.from_numpy(dense).to(device), sparse(dense, device)
    fused, plain = multinomial_nll(*leaves, rows), dense_nll(*leaves, x)
    torch.testing.assert_close(fused, plain, rtol=1e-10, atol=1e-10)
    found = gradients(lambda h, w, b: multinomial_nll(h, w, b, rows), leaves, upstream)
    expected = gradients(lambda h, w, b: dense_nll(h, w, b, x), leaves, upstream)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 35), st.integers(0, 10_000), st.floats(0.01, 50))
def test_multinomial_nll_is_the_dense_formula_at_any_size_and_scale(
    n_users: int, n_items: int, seed: int, scale: float
) -> None:
    leaves, dense = likelihood_case(n_users, n_items, 3, seed)
    leaves = leaves_as(leaves, scale=scale)
    fused = multinomial_nll(*leaves, sparse(dense))
    torch.testing.assert_close(
        fused, dense_nll(*leaves, torch.from_numpy(dense)), rtol=1e-10, atol=1e-9
    )
    assert (fused >= -1e-9).all()


def test_multinomial_nll_of_an_empty_history_is_zero_and_teaches_nothing() -> None:
    leaves, _ = likelihood_case(3, 10, 4, seed=0)
    rows = sparse(np.zeros((3, 10)))
    assert multinomial_nll(*leaves, rows).tolist() == [0.0, 0.0, 0.0]
    for grad in gradients(
        lambda h, w, b: multinomial_nll(h, w, b, rows), leaves, torch.ones(3, dtype=torch.float64)
    ):
        assert (grad == 0).all()


def test_multinomial_nll_is_exact_at_large_logits() -> None:
    weight = torch.tensor([[1e4], [-1e4], [0.0], [1e4]], requires_grad=True)
    hidden, bias = torch.ones(3, 1, requires_grad=True), torch.zeros(4, requires_grad=True)
    # Two items share the top: log Z = 1e4 + log 2.
    x = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1]])
    nll = multinomial_nll(hidden, weight, bias, sparse(x))
    log2 = math.log(2)
    assert nll.tolist() == pytest.approx([log2, 2e4 + log2, 3e4 + 4 * log2], rel=1e-6, abs=1e-3)
    _, grad_weight, grad_bias = torch.autograd.grad(nll.sum(), (hidden, weight, bias))
    # Σ_u n_u softmax_i - [i ∈ S_u], with softmax = ½, 0, 0, ½.
    assert grad_bias.tolist() == [3.0 - 2.0, -2.0, -1.0, 3.0 - 1.0]
    assert grad_weight[:, 0].tolist() == grad_bias.tolist()


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1.0, 1e2, 1e4])
def test_multinomial_nll_in_float32_is_that_in_float64(scale: float) -> None:
    leaves, dense = likelihood_case(20, 50, 6, seed=4)
    narrow = leaves_as(leaves, torch.float32, scale=scale)
    wide = leaves_as(narrow)
    rows, ones = sparse(dense), torch.ones(20)
    fused = multinomial_nll(*narrow, rows)
    assert fused.dtype == torch.float32
    torch.testing.assert_close(
        fused.double(),
        dense_nll(*wide, torch.from_numpy(dense)),
        rtol=2e-5,
        atol=1e-3 * max(1, scale / 10),
    )
    found = gradients(lambda h, w, b: multinomial_nll(h, w, b, rows), narrow, ones)
    expected = gradients(
        lambda h, w, b: dense_nll(h, w, b, torch.from_numpy(dense)), wide, ones.double()
    )
    for one, other in zip(found, expected, strict=True):
        assert one.isfinite().all()
        # A logit near scale has an error of scale · 2⁻²⁴, which the soft-max passes on.
        assert (one.double() - other).abs().max() <= 1e-5 * max(1, scale) * other.abs().max()


def test_multinomial_nll_is_the_same_with_a_used_buffer() -> None:
    buffer = LogitBuffer()
    # Shrinking, growing, then equal batches: what an earlier step left in the memory must not be
    # seen.
    for number, n_users in enumerate([8, 3, 8, 11, 11]):
        leaves, dense = likelihood_case(n_users, 21, 4, seed=number)
        rows, ones = sparse(dense), torch.ones(n_users, dtype=torch.float64)
        fresh, used = multinomial_nll(*leaves, rows), multinomial_nll(*leaves, rows, buffer)
        assert torch.equal(fresh, used)
        for one, other in zip(
            torch.autograd.grad(fresh, leaves, ones),
            torch.autograd.grad(used, leaves, ones),
            strict=True,
        ):
            assert torch.equal(one, other)


def test_logit_buffer_claims_memory_once() -> None:
    buffer, like = LogitBuffer(), torch.zeros(0)
    first = buffer.claim(8, 20, like)
    assert first.shape == (8, 32)
    assert first.dtype == like.dtype
    place = first.untyped_storage().data_ptr()
    for n_users in (8, 3, 8, 1):
        leaves, dense = likelihood_case(n_users, 20, 4, seed=0)
        leaves = leaves_as(leaves, torch.float32)
        torch.autograd.grad(multinomial_nll(*leaves, sparse(dense), buffer).sum(), leaves)
        assert buffer.claim(n_users, 20, like).untyped_storage().data_ptr() == place
    assert buffer.claim(9, 20, like).untyped_storage().nbytes() == 9 * 32 * 4
    assert buffer.claim(2, 20, like.double()).dtype == torch.float64


def test_multinomial_nll_refuses_a_backward_pass_whose_logits_are_gone() -> None:
    buffer = LogitBuffer()
    leaves, dense = likelihood_case(5, 12, 3, seed=0)
    first = multinomial_nll(*leaves, sparse(dense), buffer).sum()
    second = multinomial_nll(*leaves, sparse(dense), buffer).sum()
    with pytest.raises(RuntimeError, match="overwritten by a later one"):
        first.backward()  # type: ignore[no-untyped-call]
    second.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="overwritten by a later one"):
        second.backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("device", DEVICES)
def test_multinomial_nll_under_autocast_stays_close_and_wide(device: str) -> None:
    leaves, dense = likelihood_case(40, 60, 16, seed=2)
    leaves = leaves_as(leaves, torch.float32, device)
    rows, ones = sparse(dense, device), torch.ones(40, device=device)
    full = multinomial_nll(*leaves, rows)
    with torch.autocast(device, torch.bfloat16):
        narrow = multinomial_nll(*leaves, rows)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow, full, rtol=2e-2, atol=0.5)
    assert not torch.equal(narrow, full), "autocast changed nothing"
    for one, other in zip(
        torch.autograd.grad(narrow, leaves, ones),
        torch.autograd.grad(full, leaves, ones),
        strict=True,
    ):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.02 * other.norm()


def test_multinomial_nll_under_autocast_runs_all_three_products_in_its_type() -> None:
    leaves, dense = likelihood_case(40, 60, 16, seed=2)
    narrow = leaves[0].detach().bfloat16().requires_grad_()
    wide = leaves_as((narrow, leaves[1], leaves[2]), torch.float32)
    rows, ones = sparse(dense), torch.ones(40)
    with torch.autocast("cpu", torch.bfloat16):
        from_wide, from_narrow = (
            multinomial_nll(*wide, rows),
            multinomial_nll(narrow, wide[1], wide[2], rows),
        )
    # The backward pass is outside of autocast, as in a training step.
    of_wide = torch.autograd.grad(from_wide, wide, ones)
    of_narrow = torch.autograd.grad(from_narrow, [narrow, *wide[1:]], ones)
    assert of_narrow[0].dtype == torch.bfloat16
    for one, other in zip(of_wide, of_narrow, strict=True):
        assert torch.equal(one, other.float())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("chunk", [1, 7, 16, 60, 61, 1000])
def test_multinomial_nll_in_chunks_is_the_dense_formula(chunk: int, device: str) -> None:
    leaves, dense = likelihood_case(9, 60, 4, seed=chunk)
    leaves, upstream = leaves_as(leaves, device=device), draw(1, 9).to(device)
    x, rows, buffer = torch.from_numpy(dense).to(device), sparse(dense, device), LogitBuffer()
    torch.testing.assert_close(
        multinomial_nll(*leaves, rows, buffer, chunk), dense_nll(*leaves, x), rtol=1e-10, atol=1e-10
    )
    found = gradients(
        lambda h, w, b: multinomial_nll(h, w, b, rows, buffer, chunk), leaves, upstream
    )
    expected = gradients(lambda h, w, b: dense_nll(h, w, b, x), leaves, upstream)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 6),
    st.integers(1, 35),
    st.integers(1, 40),
    st.integers(0, 10_000),
    st.floats(0.01, 50),
)
def test_multinomial_nll_in_chunks_is_the_whole_one(
    n_users: int, n_items: int, chunk: int, seed: int, scale: float
) -> None:
    leaves, dense = likelihood_case(n_users, n_items, 3, seed)
    leaves, rows, upstream = leaves_as(leaves, scale=scale), sparse(dense), draw(seed, n_users)
    whole, chunked = multinomial_nll(*leaves, rows), multinomial_nll(*leaves, rows, None, chunk)
    torch.testing.assert_close(chunked, whole, rtol=1e-10, atol=1e-9)
    for one, other in zip(
        torch.autograd.grad(chunked, leaves, upstream),
        torch.autograd.grad(whole, leaves, upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("chunk", [None, 4])
@pytest.mark.parametrize("frozen", range(3))
def test_multinomial_nll_gives_the_same_gradients_with_a_part_frozen(
    frozen: int, chunk: int | None
) -> None:
    leaves, dense = likelihood_case(5, 9, 3, seed=1)
    upstream = draw(2, 5)

    def nll(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return multinomial_nll(hidden, weight, bias, sparse(dense), chunk_items=chunk)

    expected = gradients(nll, leaves, upstream)
    still = leaves_as(leaves)
    still[frozen].requires_grad_(False)
    torch.autograd.backward(nll(*still), upstream)
    for number, leaf in enumerate(still):
        assert leaf.grad is None if number == frozen else torch.equal(leaf.grad, expected[number])  # type: ignore[arg-type]


def test_multinomial_nll_in_chunks_holds_one_chunk_only() -> None:
    leaves, dense = likelihood_case(6, 1000, 4, seed=1)
    leaves, buffer, rows = leaves_as(leaves, torch.float32), LogitBuffer(), sparse(dense)
    torch.autograd.grad(multinomial_nll(*leaves, rows, buffer, 64).sum(), leaves)
    assert buffer.claim(1, 1, leaves[2]).untyped_storage().nbytes() == 6 * 64 * 4
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        torch.autograd.grad(multinomial_nll(*leaves, rows, buffer, 64).sum(), leaves)
    # The largest piece of memory asked for is the gradient of the weights, 1000 × 4; a batch ×
    # items array would be 6 × 1000.
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 16_000 <= largest < 24_000


@pytest.mark.parametrize("device", DEVICES)
def test_multinomial_nll_in_chunks_under_autocast_stays_close_and_wide(device: str) -> None:
    leaves, dense = likelihood_case(40, 60, 16, seed=2)
    leaves = leaves_as(leaves, torch.float32, device)
    rows, ones = sparse(dense, device), torch.ones(40, device=device)
    with torch.autocast(device, torch.bfloat16):
        whole, chunked = multinomial_nll(*leaves, rows), multinomial_nll(*leaves, rows, None, 16)
    assert chunked.dtype == torch.float32
    torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-4)
    for one, other in zip(
        torch.autograd.grad(chunked, leaves, ones),
        torch.autograd.grad(whole, leaves, ones),
        strict=True,
    ):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.01 * other.norm()


# The sampled likelihood.


@pytest.mark.parametrize("sparse_gradient", [False, True])
@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=30, deadline=None)
@given(
    n_users=st.integers(0, 6),
    n_items=st.integers(1, 35),
    seed=st.integers(0, 10_000),
    scale=st.floats(0.01, 50),
)
def test_sampled_nll_of_every_item_once_is_the_exact_one(
    sparse_gradient: bool, device: str, n_users: int, n_items: int, seed: int, scale: float
) -> None:
    leaves, dense = likelihood_case(n_users, n_items, 3, seed)
    leaves, rows, upstream = (
        leaves_as(leaves, device=device, scale=scale),
        sparse(dense, device),
        draw(seed, n_users).to(device),
    )
    every = torch.randperm(n_items, generator=torch.Generator().manual_seed(seed)).to(device)
    once = torch.ones(n_items, dtype=torch.float64, device=device)
    exact, sampled = (
        multinomial_nll(*leaves, rows),
        sampled_nll(*leaves, rows, every, once, sparse_gradient=sparse_gradient),
    )
    torch.testing.assert_close(sampled, exact, rtol=1e-10, atol=1e-9)
    for one, other in zip(
        torch.autograd.grad(sampled, leaves, upstream),
        torch.autograd.grad(exact, leaves, upstream),
        strict=True,
    ):
        torch.testing.assert_close(one.to_dense(), other, rtol=1e-9, atol=1e-9)


def test_sampled_normalizer_is_right_on_average_and_its_logarithm_nearly() -> None:
    n_sampled, n_draws = 40, 5_000
    (hidden, weight, bias), dense = likelihood_case(4, 50, 3, seed=7)
    dense[:, :5] = 1  # nobody without items
    # Small logits, for the logarithm's bias is minus half the variance only where the variance is
    # small.
    leaves, rows, generator = (
        (hidden.detach() / 4, weight.detach(), bias.detach() / 4),
        sparse(dense),
        torch.Generator().manual_seed(0),
    )
    probability = torch.rand(50, dtype=torch.float64, generator=generator) + 0.1
    probability /= probability.sum()
    exact = multinomial_nll(*leaves, rows)
    draws = [
        torch.multinomial(probability, n_sampled, replacement=True, generator=generator)
        for _ in range(n_draws)
    ]
    sampled = torch.stack(
        [sampled_nll(*leaves, rows, drawn, n_sampled * probability[drawn]) for drawn in draws]
    )
    gap = (sampled - exact) / rows.counts
    ratio = gap.exp()
    assert ((ratio.mean(dim=0) - 1).abs() < 4 * ratio.std(dim=0) / n_draws**0.5 + 1e-12).all()
    torch.testing.assert_close(gap.mean(dim=0), -ratio.var(dim=0) / 2, rtol=0.3, atol=2e-3)


def test_sampled_nll_of_an_empty_history_is_zero_and_teaches_nothing() -> None:
    leaves, _ = likelihood_case(3, 10, 4, seed=0)
    rows, sample, expected = (
        sparse(np.zeros((3, 10))),
        torch.tensor([1, 1, 4]),
        torch.ones(3, dtype=torch.float64),
    )
    assert sampled_nll(*leaves, rows, sample, expected).tolist() == [0.0, 0.0, 0.0]
    for grad in gradients(
        lambda h, w, b: sampled_nll(h, w, b, rows, sample, expected),
        leaves,
        torch.ones(3, dtype=torch.float64),
    ):
        assert (grad == 0).all()


def test_sampled_nll_counts_a_users_own_items_once_however_often_they_are_drawn() -> None:
    leaves, _ = likelihood_case(2, 9, 3, seed=0)
    rows, one = sparse(np.eye(2, 9)), torch.ones(1, dtype=torch.float64)
    few = sampled_nll(*leaves, rows, torch.tensor([5]), one)
    many = sampled_nll(
        *leaves,
        rows,
        torch.tensor([0, 5, 0, 0]),
        torch.tensor([0.3, 1, 0.3, 0.3], dtype=torch.float64),
    )
    torch.testing.assert_close(many[0], few[0])
    assert many[1] > few[1]


# The KL.


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 10_000))
def test_gaussian_kl_is_that_of_torch_summed_over_dimensions(
    n_users: int, latent_dim: int, seed: int
) -> None:
    mu, logvar = draw(seed, n_users, latent_dim), draw(seed + 1, n_users, latent_dim)
    expected = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(gaussian_kl(mu, logvar), expected, rtol=1e-10, atol=1e-12)


def test_gaussian_kl_is_the_mean_log_ratio_of_samples() -> None:
    mu, logvar = (
        torch.tensor([[0.5, -1.0, 0.0]]).double(),
        torch.tensor([[-0.7, 0.3, 0.0]]).double(),
    )
    q, p = Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)
    z = mu + (logvar / 2).exp() * draw(0, 200_000, 3)
    ratio = (q.log_prob(z) - p.log_prob(z)).sum(dim=1)  # type: ignore[no-untyped-call]
    error = float(ratio.std()) / math.sqrt(len(z))
    assert float(gaussian_kl(mu, logvar)) == pytest.approx(float(ratio.mean()), abs=5 * error)


@pytest.mark.parametrize(
    ("logvar", "expected"),
    [(60.0, 0.5 * (math.expm1(60) - 60)), (-60.0, 0.5 * 59), (1e-3, 2.500833e-7), (0.0, 0.0)],
)
def test_gaussian_kl_is_accurate_from_tiny_to_huge_variances(
    logvar: float, expected: float
) -> None:
    found = gaussian_kl(torch.zeros(1, 1), torch.tensor([[logvar]]))
    assert float(found) == pytest.approx(expected, rel=1e-3)


def test_gaussian_kl_has_the_textbooks_gradient() -> None:
    mu, logvar = draw(3, 5, 4).requires_grad_(), draw(4, 5, 4).requires_grad_()
    of_mu, of_logvar = torch.autograd.grad(gaussian_kl(mu, logvar).sum(), (mu, logvar))
    torch.testing.assert_close(of_mu, mu.detach())
    torch.testing.assert_close(of_logvar, logvar.detach().expm1() / 2)


# Personalized Item Alignment.


def double_sum(mu: Tensor, logvar: Tensor, anchors: Tensor, dense: np.ndarray) -> Tensor:
    """The definition, item by item: mean over a user's items of E ‖z - e_i‖² = ‖mu - e_i‖² + Σ
    variance.
    """
    values = []
    for user, row in enumerate(dense):
        terms = [
            ((mu[user] - anchors[item]) ** 2).sum() + logvar[user].exp().sum()
            for item in np.flatnonzero(row)
        ]
        values.append(
            torch.stack(terms).mean() if terms else 0 * (mu.sum() + logvar.sum() + anchors.sum())
        )
    return torch.stack(values)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 5), st.integers(0, 10_000))
def test_alignment_is_the_double_sum(
    n_users: int, n_items: int, latent_dim: int, seed: int
) -> None:
    leaves = draw_leaves(seed, (n_users, latent_dim), (n_users, latent_dim), (n_items, latent_dim))
    dense, upstream = random_dense(n_users, n_items, seed), draw(seed + 1, n_users)
    rows = sparse(dense)
    torch.testing.assert_close(
        alignment(*leaves, rows), double_sum(*leaves, dense), rtol=1e-10, atol=1e-10
    )
    found = gradients(lambda m, v, e: alignment(m, v, e, rows), leaves, upstream)
    expected = torch.autograd.grad(double_sum(*leaves, dense), leaves, upstream)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_alignment_is_the_mean_of_samples() -> None:
    mu, logvar, anchors = (leaf.detach() for leaf in draw_leaves(0, (1, 3), (1, 3), (6, 3)))
    items = torch.tensor([0, 2, 5])
    z = mu + (logvar / 2).exp() * draw(1, 200_000, 3)
    sampled = (z[:, None] - anchors[items]).square().sum(dim=2).mean(dim=1)
    dense = np.zeros((1, 6))
    dense[0, items] = 1
    error = float(sampled.std()) / math.sqrt(len(z))
    assert float(alignment(mu, logvar, anchors, sparse(dense))) == pytest.approx(
        float(sampled.mean()), abs=5 * error
    )


def test_alignment_of_an_empty_history_is_zero_and_pulls_nothing() -> None:
    leaves = draw_leaves(0, (2, 3), (2, 3), (4, 3))
    value = alignment(*leaves, sparse(np.array([[0, 0, 0, 0], [0, 1, 0, 0]])))
    of_mu, of_logvar, of_anchors = torch.autograd.grad(value.sum(), leaves)
    assert value[0] == 0
    assert value[1] > 0
    assert (of_mu[0] == 0).all()
    assert (of_logvar[0] == 0).all()
    assert (of_anchors[[0, 2, 3]] == 0).all()
    assert of_anchors[1].abs().min() > 0


def test_alignment_gathers_the_anchors_of_items_consumed_together() -> None:
    # Two groups of items that no user mixes; the posterior is held where it is.
    dense = np.kron(np.eye(2), np.ones((10, 4)))
    mu, logvar = torch.tensor([[1.0, 0.0]] * 10 + [[0.0, 1.0]] * 10), torch.zeros(20, 2)
    anchors = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def spread() -> tuple[float, float]:
        groups = anchors.detach().view(2, 4, 2)
        return float(groups.var(dim=1).sum()), float(
            (groups[0].mean(dim=0) - groups[1].mean(dim=0)).norm()
        )

    within_before, _ = spread()
    optimizer = torch.optim.SGD([anchors], lr=1.0)
    for _ in range(40):
        optimizer.zero_grad()
        alignment(mu, logvar, anchors, sparse(dense)).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    within, between = spread()
    assert within < 0.01 * within_before
    assert between == pytest.approx(math.sqrt(2), rel=0.05)


def conditional_prior(
    mu: Tensor, logvar: Tensor, anchors: Tensor, dense: np.ndarray, beta: float, pia: float
) -> Tensor:
    """β·KL to a prior of each user's own, and what is left; no row is empty."""
    weights = torch.from_numpy(dense / dense.sum(axis=1, keepdims=True))
    centroid, shrunk = weights @ anchors, beta / (beta + 2 * pia)
    prior = Normal(2 * pia / (beta + 2 * pia) * centroid, math.sqrt(shrunk))
    kl = kl_divergence(Normal(mu, (logvar / 2).exp()), prior).sum(dim=1)
    length = centroid.square().sum(dim=1)
    scatter = weights @ anchors.square().sum(dim=1) - length
    constant = -beta * mu.shape[1] / 2 * math.log(shrunk)
    return beta * kl + pia * (shrunk * length + scatter) + constant


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 5), st.floats(0.001, 50), st.integers(1, 5), st.integers(0, 10_000))
def test_pia_is_a_prior_of_each_user_s_own(
    beta: float, pia: float, latent_dim: int, seed: int
) -> None:
    leaves = draw_leaves(seed, (4, latent_dim), (4, latent_dim), (6, latent_dim))
    dense, upstream = random_dense(4, 6, seed), draw(seed + 1, 4)
    dense[dense.sum(axis=1) == 0, 0] = 1

    def as_trained(mu: Tensor, logvar: Tensor, anchors: Tensor) -> Tensor:
        return beta * gaussian_kl(mu, logvar) + pia * alignment(mu, logvar, anchors, sparse(dense))

    def as_prior(mu: Tensor, logvar: Tensor, anchors: Tensor) -> Tensor:
        return conditional_prior(mu, logvar, anchors, dense, beta, pia)

    torch.testing.assert_close(as_trained(*leaves), as_prior(*leaves), rtol=1e-9, atol=1e-9)
    pairs = zip(
        gradients(as_trained, leaves, upstream), gradients(as_prior, leaves, upstream), strict=True
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_the_prior_of_each_user_s_own_is_the_integral() -> None:
    beta, pia, items, q = 0.3, 0.7, np.array([-0.4, 1.1, 2.0]), norm(0.6, 0.5)

    def integrand(z: float) -> float:
        divergence = q.logpdf(z) - norm.logpdf(z)
        return float(q.pdf(z) * (beta * divergence + pia * ((z - items) ** 2).mean()))

    mu, logvar, anchors = (
        torch.tensor(values, dtype=torch.float64)[:, None]
        for values in ([0.6], [2 * math.log(0.5)], items)
    )
    found = conditional_prior(mu, logvar, anchors, np.ones((1, 3)), beta, pia)
    assert float(found) == pytest.approx(quad(integrand, -8, 8)[0], rel=1e-6)


# Masking.


def test_mask_items_keeps_each_entry_with_its_probability() -> None:
    rows = sparse(random_dense(200, 300, 0, density=0.5))
    for keep_prob in (0.1, 0.5, 0.9):
        kept = mask_items(rows, keep_prob, torch.Generator().manual_seed(1))
        n, error = len(rows.indices), math.sqrt(keep_prob * (1 - keep_prob) / len(rows.indices))
        assert len(kept.indices) / n == pytest.approx(keep_prob, abs=5 * error)
        assert (to_dense(kept) <= to_dense(rows)).all()


def test_mask_items_keeps_entries_independently() -> None:
    rows = sparse(np.ones((20_000, 2)))
    kept = to_dense(mask_items(rows, 0.3, torch.Generator().manual_seed(0)))
    both = kept.prod(axis=1).mean()
    assert both == pytest.approx(0.09, abs=5 * math.sqrt(0.09 * 0.91 / 20_000))


def test_mask_items_over_keep_prob_is_the_clean_input_on_average() -> None:
    rows, keep_prob, n_masks = sparse(random_dense(6, 12, 3)), 0.4, 4000
    weight = torch.randn(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    scale = input_scale(rows.counts).unsqueeze(1)
    masked = torch.stack(
        [
            gather_sum(mask_items(rows, keep_prob, generator), weight) * scale / keep_prob
            for _ in range(n_masks)
        ]
    )
    error = masked.std(dim=0) / math.sqrt(n_masks)
    assert (
        (masked.mean(dim=0) - gather_sum(rows, weight) * scale).abs() <= 5 * error + 1e-12
    ).all()


def test_mask_items_keeps_everything_at_one() -> None:
    rows, generator = sparse(random_dense(4, 9, 0)), torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert mask_items(rows, 1.0, generator) is rows
    assert torch.equal(generator.get_state(), before)


def test_mask_items_is_reproducible_by_its_generator() -> None:
    rows = sparse(random_dense(30, 30, 0))
    one, again, other = (
        mask_items(rows, 0.5, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8)
    )
    assert torch.equal(one.indices, again.indices)
    assert not np.array_equal(to_dense(one), to_dense(other))


@pytest.mark.parametrize("keep_prob", [0.0, -0.1, 1.1, math.nan])
def test_mask_items_refuses_what_is_no_probability(keep_prob: float) -> None:
    rows = SparseRows(torch.tensor([0]), torch.tensor([0, 1]), 1)
    with pytest.raises(ConfigError, match=r"keep_prob must be in \(0, 1\]"):
        mask_items(rows, keep_prob, torch.Generator())


# The schedule.


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 500), st.floats(0, 10))
def test_linear_warm_up_rises_linearly_and_stays(steps: int, maximum: float) -> None:
    values = [linear_warm_up(step, steps, maximum) for step in range(3 * steps)]
    assert values[:steps] == pytest.approx([maximum * i / steps for i in range(steps)])
    assert set(values[steps:]) == {maximum}


def test_linear_warm_up_of_no_steps_is_the_maximum_at_once() -> None:
    assert [linear_warm_up(step, 0, 0.7) for step in (0, 1, 99)] == [0.7, 0.7, 0.7]
