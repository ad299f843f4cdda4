"""One Mult-VAE training step against the naive dense step and against the decoder's three products alone.

    python benchmarks/training_step.py --items 20108 --json step.json

All three run in turn within one process, so that the machine's drift touches them alike; medians and the ratios
pair by pair are reported. The dense step is the usual PyTorch one: a dense batch, nn.Linear, log_softmax, Adam.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import nn
from torch.nn import functional

from coterie.models.multvae import MultVAEConfig
from coterie.objectives.likelihood import ALIGNMENT
from coterie.sparse import SparseRows
from coterie.training.step import Precision, TrainingStep


def histories(n_users: int, n_items: int, items_per_user: int, seed: int) -> csr_array:
    """Random histories with Zipf-like popularity; repeated draws merge."""
    rng = np.random.default_rng(seed)
    law = 1 / np.arange(10, n_items + 10)
    draws = items_per_user * 17 // 16
    drawn = rng.choice(n_items, size=n_users * draws, p=law / law.sum())
    rows = np.repeat(np.arange(n_users), draws)
    matrix = csr_array((np.ones(len(drawn), dtype=np.float32), (rows, drawn)), shape=(n_users, n_items))
    matrix.data[:] = 1
    return matrix


def sparse_step(matrix: csr_array, config: MultVAEConfig, device: str, precision: Precision) -> Callable[[], None]:
    """Coterie's step, as `coterie.train` takes it."""
    step = TrainingStep(matrix.shape[1], config, device=device, precision=precision)
    rows = SparseRows.from_csr(matrix, device)
    return lambda: _discard(step(rows))


def _discard(_: object) -> None:
    return


def dense_step(matrix: csr_array, config: MultVAEConfig, device: str) -> Callable[[], None]:
    """The step as it is usually written."""
    n_items, (hidden,), latent = matrix.shape[1], config.hidden_dims, config.latent_dim
    encoder = nn.Sequential(nn.Linear(n_items, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latent)).to(device)
    decoder = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, n_items)).to(device)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)

    def step() -> None:
        x = torch.from_numpy(matrix.toarray()).to(device)
        mu, logvar = encoder(functional.dropout(functional.normalize(x), 1 - config.keep_prob)).chunk(2, dim=1)
        z = mu + (logvar / 2).exp() * torch.randn_like(mu)
        nll = -(functional.log_softmax(decoder(z), dim=1) * x).sum(1)
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)
        optimizer.zero_grad()
        (nll + 0.2 * kl).mean().backward()
        optimizer.step()

    return step


def products(n_users: int, n_items: int, hidden: int, device: str, align: int = 1) -> Callable[[], None]:
    """The decoder's three products into memory allocated once: h Wᵀ, G W and Gᵀ h.

    With ``align`` the rows of the logits start at multiples of so many numbers, as Coterie's do: a lower floor.
    """
    h, weight = torch.randn(n_users, hidden, device=device), torch.randn(n_items, hidden, device=device)
    logits = torch.empty(n_users, -(-n_items // align) * align, device=device)[:, :n_items]
    grad_h, grad_weight = torch.empty_like(h), torch.empty_like(weight)

    def step() -> None:
        torch.mm(h, weight.t(), out=logits)
        torch.mm(logits, weight, out=grad_h)
        torch.mm(logits.t(), h, out=grad_weight)

    return step


def measure(steps: dict[str, Callable[[], None]], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of each step, the steps in turn within every round, after one uncounted round."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for counted in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            if counted:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20108)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--items-per-user", type=int, default=73)
    parser.add_argument("--hidden", type=int, default=600)
    parser.add_argument("--latent", type=int, default=200)
    parser.add_argument("--pia", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=["float32", "bf16"])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    matrix = histories(args.batch, args.items, args.items_per_user, seed=0)
    config = MultVAEConfig(hidden_dims=(args.hidden,), latent_dim=args.latent, pia=args.pia)
    seconds = measure(
        {
            "coterie": sparse_step(matrix, config, args.device, args.precision),
            "dense": dense_step(matrix, config, args.device),
            "products": products(args.batch, args.items, args.hidden, args.device),
            "aligned_products": products(args.batch, args.items, args.hidden, args.device, ALIGNMENT),
        },
        args.rounds,
        args.device,
    )
    median = {name: statistics.median(times) for name, times in seconds.items()}
    ratio = {
        f"ratio_to_{other}": statistics.median(a / b for a, b in zip(seconds["coterie"], seconds[other], strict=True))
        for other in ("products", "aligned_products", "dense")
    }
    print(f"{matrix.nnz / args.batch:.0f} items a user, {torch.get_num_threads()} threads, median of {args.rounds} rounds")
    for name, value in median.items():
        print(f"  {name:16} {1000 * value:8.1f} ms a step   {args.batch / value:10.0f} users/s")
    print("  coterie over " + "   ".join(f"{name.removeprefix('ratio_to_')} {value:.2f}" for name, value in ratio.items()))
    if args.json:
        args.json.write_text(json.dumps({"median_seconds": median, **ratio, "torch": torch.__version__}, indent=2) + "\n")


if __name__ == "__main__":
    main()
