"""Gradient transfer between all pairs of users, beside autograd writing the gradients out.

    python benchmarks/gradient_transfer.py [--users 1000] [--items 20000] [--draws 4]
    [--autograd-users 8]

An untrained I-600-200-600-I; the decoder's arithmetic does not depend on its weights. Autograd is
measured on a few users and extrapolated: to two gradients a pair, and to keeping the gradients of
all users, whose memory is told. What their products would take is not counted. The products of the
few users are compared, autograd's in float64, as float32 loses digits over millions of parameters.
Peaks are of this process before autograd begins. Linux only.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call, grad

from coterie.lab.bench.turns import machine, random_histories
from coterie.lab.collaboration.posteriors import encode_users
from coterie.lab.collaboration.transfer import UserDraws, draw_users, gradient_transfer
from coterie.models.multvae import MultVAEConfig
from coterie.networks.multvae import MultVAE
from coterie.plain_table import plain_table
from coterie.sparse import SparseRows

GIB = 2**30


class Decoder(torch.nn.Module):
    """The mean loss of one user, from dense logits."""

    def __init__(self, network: MultVAE) -> None:
        super().__init__()
        self.decoder, self.output = network.decoder, network.output

    def forward(self, z: Tensor, items: Tensor) -> Tensor:
        """Nats, the mean over the ``[n_draws, latent_dim]`` points."""
        for layer in self.decoder:
            z = torch.tanh(layer(z))
        logits = z @ self.output.weight.t() + self.output.bias
        return -torch.log_softmax(logits, dim=1)[:, items].sum(dim=1).mean()


def written_out(network: MultVAE, users: UserDraws) -> Tensor:
    """``[n_users, n_parameters]``: the gradient of one user after another."""
    loss = Decoder(network)
    weights = {name: value.detach() for name, value in loss.named_parameters()}
    gradient = grad(lambda weights, z, items: functional_call(loss, weights, (z, items)))
    ends = users.rows.offsets.tolist()
    found = [
        gradient(weights, users.z[u], users.rows.indices[ends[u] : ends[u + 1]])
        for u in range(len(users))
    ]
    return torch.stack([torch.cat([value.flatten() for value in one.values()]) for one in found])


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def told(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds < 600 else f"{seconds / 3600:,.1f} h"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--items-per-user", type=int, default=73)
    parser.add_argument("--draws", type=int, default=4, help="latent points a user; 0 = the mean")
    parser.add_argument(
        "--autograd-users", type=int, default=8, help="whose gradients are written out"
    )
    args = parser.parse_args()
    network = MultVAEConfig().build(args.items, torch.Generator().manual_seed(1)).eval()
    rows = SparseRows.from_csr(random_histories(args.users, args.items, args.items_per_user))
    users = draw_users(
        encode_users(network, rows), rows, args.draws, torch.Generator().manual_seed(1)
    )
    before = peak_bytes()
    start = time.perf_counter()
    transfer = gradient_transfer(network, users)
    seconds, peak = time.perf_counter() - start, peak_bytes()

    few = users.take(torch.arange(min(args.autograd_users, args.users)))
    written_out(network, few.take(torch.arange(1)))
    start = time.perf_counter()
    gradients = written_out(network, few)
    a_gradient = (time.perf_counter() - start) / len(few)
    products = torch.stack([gradients.double() @ one.double() for one in gradients])
    error = float((transfer[: len(few), : len(few)] - products).abs().max() / products.abs().max())

    size = gradients[0].numel() * gradients.element_size()
    by_pair, at_once = 2 * args.users**2 * a_gradient, args.users * a_gradient
    lines = [
        [
            "gradient_transfer",
            told(seconds),
            "1",
            f"{peak / GIB:.2f} GiB in all, {before / GIB:.2f} before",
        ],
        [
            "autograd, two gradients a pair",
            told(by_pair),
            f"{by_pair / seconds:,.0f}",
            f"{2 * size / GIB:,.2f} GiB of gradients",
        ],
        [
            "autograd, all gradients kept",
            told(at_once),
            f"{at_once / seconds:,.1f}",
            f"{args.users * size / GIB:,.2f} GiB of gradients",
        ],
    ]
    print(
        f"{args.users:,} × {args.users:,} users, {args.items:,} items, I-600-200-600-I,"
        f" {args.draws} draws, {machine('cpu')['machine']}"
    )
    print(plain_table(["", "time", "ratio", "memory"], lines, [False, True, True, False]))
    print(
        f"autograd from {len(few)} users, extrapolated; products of those differ by {error:.1e} of"
        " the largest"
    )


if __name__ == "__main__":
    main()
