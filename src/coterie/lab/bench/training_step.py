"""One Mult-VAE training step against the usual dense one and against the decoder's three products
alone.
"""

from collections.abc import Callable

import torch
from scipy.sparse import csr_array
from torch import nn
from torch.nn import functional

from coterie.config import TrainingConfig
from coterie.lab.bench.turns import Turns, machine, random_histories, take_turns
from coterie.models.multvae import MultVAEConfig
from coterie.objectives.likelihood import ALIGNMENT
from coterie.running.execution import Execution
from coterie.sparse import SparseRows
from coterie.training.step import TrainingStep


def bench_training_step(
    n_items: int = 20108,
    *,
    batch_size: int = 500,
    items_per_user: int = 73,
    model: MultVAEConfig | None = None,
    training: TrainingConfig | None = None,
    rounds: int = 15,
    device: Execution | str = "cpu",
    dense: bool = True,
) -> Turns:
    """Times a step on random histories.

    Args:
        n_items: Size of the catalogue.
        batch_size: Users a step.
        items_per_user: Mean length of a history.
        model: With one hidden layer; I-600-200-600-I by default.
        training: Chunks, samples and sparse updates are its matter.
        rounds: How often each takes its turn.
        device: A device's name, or an `Execution` whose precision is that of Coterie's products.
        dense: Whether the dense step takes part; it needs several batch × items arrays.

    Returns:
        With the ratios ``ratio_to_products`` (the decoder's three products into memory allocated
        once, as a floor), ``ratio_to_aligned_products`` (the same with the logits' rows aligned to
        64 bytes: a lower floor) and ``ratio_to_dense``.

    Example:
        >>> turns = bench_training_step(
        ...     50,
        ...     batch_size=20,
        ...     items_per_user=5,
        ...     model=MultVAEConfig(hidden_dims=(8,), latent_dim=4),
        ...     rounds=1,
        ... )
        >>> sorted(turns.ratios)
        ['ratio_to_aligned_products', 'ratio_to_dense', 'ratio_to_products']
    """
    model = model or MultVAEConfig()
    execution = Execution.of(device).resolved()
    device = execution.device
    matrix = random_histories(batch_size, n_items, items_per_user)
    hidden = model.hidden_dims[0]
    step, rows = (
        TrainingStep(n_items, model, training, execution),
        SparseRows.from_csr(matrix, device),
    )
    contestants: dict[str, Callable[[], object]] = {
        "coterie": lambda: step(rows),
        "products": products(batch_size, n_items, hidden, device),
        "aligned products": products(batch_size, n_items, hidden, device, ALIGNMENT),
    }
    if dense:
        contestants["dense"] = dense_step(matrix, model, device)
    turns = Turns(take_turns(contestants, rounds, device), batch_size)
    ratios = {
        f"ratio_to_{name.replace(' ', '_')}": turns.ratio("coterie", name)
        for name in contestants
        if name != "coterie"
    }
    shape = f"I-{hidden}-{model.latent_dim}-{hidden}-I"
    facts = {
        "items": n_items,
        "batch": batch_size,
        "items_per_user": round(matrix.nnz / batch_size),
        "shape": shape,
        "pia": model.pia,
    }
    return Turns(
        turns.seconds,
        batch_size,
        {**facts, "precision": execution.precision, "rounds": rounds, **machine(device)},
        ratios,
    )


def dense_step(matrix: csr_array, model: MultVAEConfig, device: str) -> Callable[[], None]:
    """The step as it is usually written: a dense batch, nn.Linear, log_softmax, Adam."""
    n_items, (hidden,), latent = matrix.shape[1], model.hidden_dims, model.latent_dim
    encoder = nn.Sequential(
        nn.Linear(n_items, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latent)
    ).to(device)
    decoder = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, n_items)).to(
        device
    )
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)

    def step() -> None:
        x = torch.from_numpy(matrix.toarray()).to(device)
        mu, logvar = encoder(
            functional.dropout(functional.normalize(x), 1 - model.keep_prob)
        ).chunk(2, dim=1)
        z = mu + (logvar / 2).exp() * torch.randn_like(mu)
        nll = -(functional.log_softmax(decoder(z), dim=1) * x).sum(1)
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
        optimizer.zero_grad()
        (nll + model.beta * kl).mean().backward()
        optimizer.step()

    return step


def products(
    n_users: int, n_items: int, hidden: int, device: str, align: int = 1
) -> Callable[[], None]:
    """The decoder's three products into memory allocated once: h Wᵀ, G W and Gᵀ h.

    With ``align`` the rows of the logits start at multiples of so many numbers, as Coterie's do: a
    lower floor.
    """
    h, weight = (
        torch.randn(n_users, hidden, device=device),
        torch.randn(n_items, hidden, device=device),
    )
    logits = torch.empty(n_users, -(-n_items // align) * align, device=device)[:, :n_items]
    grad_h, grad_weight = torch.empty_like(h), torch.empty_like(weight)

    def step() -> None:
        torch.mm(h, weight.t(), out=logits)
        torch.mm(logits, weight, out=grad_h)
        torch.mm(logits.t(), h, out=grad_weight)

    return step
