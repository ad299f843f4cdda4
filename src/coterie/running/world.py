"""Data parallelism: several processes that train one model, over torch.distributed.

Every process holds all weights, takes its part of each batch's users, and sums gradients and terms
with the others before the optimiser moves. What a process must know comes from the variables of an
``env://`` launch (torchrun, Slurm, Ray): RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT.
"""

import functools
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from coterie.errors import ConfigError
from coterie.sparse import SparseRows

# Longer than a process waits for another in a healthy run: the first one writes checkpoints and the
# model alone.
TIMEOUT = timedelta(minutes=10)

# Elements below which the time of a message is that of its departure.
SMALL = 1 << 16


@dataclass(frozen=True)
class World:
    """The processes that train together, as one of them sees them; alone by default, when nothing
    is ever exchanged.

    Each method but `share` and `take` is an appointment: every process must call it, in the same
    order.

    Args:
        rank: Number of this process.
        size: How many there are.
        device: Where this process computes; what is exchanged passes through it.

    Example:
        >>> [World(rank, 3).share(7) for rank in range(3)]
        [slice(0, 2, None), slice(2, 4, None), slice(4, 7, None)]
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """Whether this is the first process, the one that writes files and draws progress."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """This process's part of ``n`` things in a row: parts differ by one at most, and may be
        empty.
        """
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def take(self, rows: SparseRows) -> SparseRows:
        """This process's part of ``rows``."""
        if self.size == 1:
            return rows
        mine = self.share(len(rows))
        return rows.take(torch.arange(mine.start, mine.stop, device=rows.offsets.device))

    @contextmanager
    def summed_gradients(self, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
        """Around a backward pass: when the block ends, the gradients of ``parameters`` are sums
        over all processes.

        A large one is sent off as soon as it is there and travels while the rest of the pass goes
        on; small ones go together at the end. The processes run the same graph, be it of no users,
        and so agree on the order.
        """
        under_way: list[dist.Work] = []
        small: list[Tensor] = []

        def send(parameter: nn.Parameter) -> None:
            assert parameter.grad is not None
            if parameter.grad.numel() < SMALL:
                small.append(parameter.grad)
            else:
                under_way.append(dist.all_reduce(parameter.grad, async_op=True))

        hooks = [
            parameter.register_post_accumulate_grad_hook(send)  # type: ignore[no-untyped-call]
            for parameter in parameters
            if self.size > 1
        ]
        try:
            yield
            if small:
                vector_to_parameters(self.all_reduce_sum(parameters_to_vector(small)), small)
            for work in under_way:
                work.wait()
        finally:
            for hook in hooks:
                hook.remove()

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all processes, the same bits for each."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def all_reduce_max(self, number: int) -> int:
        """The highest ``number`` (int64) that any process holds."""
        if self.size == 1:
            return number
        held = torch.tensor(number, dtype=torch.int64, device=self.device)
        dist.all_reduce(held, dist.ReduceOp.MAX)
        return int(held)

    def barrier(self) -> None:
        """Waits until all are here."""
        self.all_reduce_max(0)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites ``tensors`` with the first process's."""
        for tensor in tensors if self.size > 1 else ():
            dist.broadcast(tensor, src=0)

    def shared_text(self, text: str) -> str:
        """The first process's ``text``."""
        if self.size == 1:
            return text
        content = torch.tensor(list(text.encode()), dtype=torch.uint8, device=self.device)
        n_bytes = self.all_reduce_max(len(content) if self.leads else 0)
        shared = content if self.leads else content.new_empty(n_bytes)
        self.broadcast([shared])
        return bytes(shared.tolist()).decode()

    def check_same(self, what: str, value: str) -> None:
        """Checks that every process holds the same ``value``.

        Raises:
            ConfigError: on every process, if not.
        """
        digest = int.from_bytes(hashlib.sha256(value.encode()).digest()[:7])
        if self.all_reduce_max(digest) != -self.all_reduce_max(-digest):
            raise ConfigError(
                f"every process must see the same {what}, rank {self.rank} of {self.size} sees"
                f" {value}; give all the same arguments and folders that they share."
            )


ALONE = World()


@contextmanager
def join_world(device: str) -> Iterator[World]:
    """The world that this process was launched into.

    A process group that the caller has initialised is used as it is and stays; one made here is
    destroyed at the end.

    Args:
        device: Where this process computes: NCCL connects CUDA devices, Gloo everything else.

    Raises:
        ConfigError: if the environment speaks of several processes but does not say how to reach
            them.
    """
    if dist.is_available() and dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size(), device)
    elif (size := _number("WORLD_SIZE", 1)) > 1:
        rank = rank_of_process()
        # No keys are shared with an earlier group of this process: they would lead to sockets that
        # are gone.
        store = dist.PrefixStore(f"coterie/{next(_GROUPS)}", _store())  # type: ignore[attr-defined]
        dist.init_process_group(
            "nccl" if device.startswith("cuda") else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=TIMEOUT,
        )
        try:
            yield World(rank, size, device)
        finally:
            dist.destroy_process_group()
    else:
        yield ALONE


def rank_of_process() -> int:
    """The number of this process in its launch; 0 without a launcher."""
    return _number("RANK", 0)


def cuda_of_process(n_devices: int) -> str:
    """The CUDA device of this process, which sees ``n_devices``: ``cuda:LOCAL_RANK`` under a
    launcher, else ``cuda``.
    """
    if "LOCAL_RANK" not in os.environ:
        return "cuda"
    # Where each process is shown one device of its own, that has the number 0.
    return f"cuda:{_number('LOCAL_RANK', 0) % n_devices}"


_GROUPS = itertools.count()


@functools.cache
def _store() -> Any:
    """Where processes find one another; it lasts as long as the process, since the first one serves
    it to the others.
    """
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        found = f"found WORLD_SIZE={os.environ['WORLD_SIZE']} without {', '.join(missing)}"
        raise ConfigError(
            f"several processes need RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, {found}; launch"
            " with torchrun."
        )
    store, _, _ = next(dist.rendezvous("env://", timeout=TIMEOUT))  # type: ignore[attr-defined]
    return store


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise ConfigError(
            f"the environment variable {name} must be a whole number, found {text!r}; launch with"
            " torchrun or unset it."
        )
    return int(text)
