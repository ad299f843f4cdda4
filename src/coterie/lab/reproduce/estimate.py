"""The time and memory a table will take, extrapolated from a few steps on random histories of its
size and density.

Each figure is measured in a process of its own, so that a peak is that of one thing. What grows
with users is measured at two numbers of them; a network's step is measured at the table's own
number of items, and EASE at two smaller ones, as its time grows with items³ (or users³, if fewer)
and its memory with items².
"""

import logging
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from scipy.sparse import eye_array

from coterie.config import RunConfig
from coterie.data.dataset import Dataset, Interactions
from coterie.data.ids import IdMap
from coterie.data.split import Split, choose_users, hide_items
from coterie.lab.bench.turns import machine, random_histories
from coterie.lab.reproduce.definition import Definition, read_definition
from coterie.models.ease import EaseConfig
from coterie.models.linear_path import LinearPathConfig
from coterie.models.popularity import PopularityConfig
from coterie.plain_table import plain_table
from coterie.running.execution import Execution, using_threads
from coterie.training.loop import TrainingLoop
from coterie.training.trainer import train

FEW, MANY = 3_000, 33_000
"""Users at which memory is measured; steps are timed on the fewer."""

HELD_OUT = 500
EASE_ITEMS = (4_000, 8_000)
GIB = 2**30

Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Cost:
    """What one run of a row will take.

    Args:
        hours: Of training with its validations, all epochs run; None where nothing was measured.
        gib: Peak memory.
        gpu_gib: Peak memory of the GPU, where there is one.
        epochs: At most; None for a closed form.
    """

    hours: float | None
    gib: float | None
    gpu_gib: float | None = None
    epochs: int | None = None


@dataclass(frozen=True)
class Costs:
    """What a table will take, a run a row.

    Args:
        table: Name.
        facts: Size and machine; JSON values.
        rows: By name.
    """

    table: str
    facts: Mapping[str, Any]
    rows: Mapping[str, Cost]

    def to_json(self) -> dict[str, Any]:
        """All figures as JSON values."""
        return {
            "table": self.table,
            **self.facts,
            "rows": {name: asdict(cost) for name, cost in self.rows.items()},
        }

    def __str__(self) -> str:
        columns = {
            "epochs at most": "epochs",
            "hours": "hours",
            "GiB": "gib",
            "GiB of GPU": "gpu_gib",
        }
        shown = {
            name: field
            for name, field in columns.items()
            if any(getattr(cost, field) is not None for cost in self.rows.values())
        }
        cells = [
            [name, *(_told(getattr(cost, field)) for field in shown.values())]
            for name, cost in self.rows.items()
        ]
        facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in self.facts.items())
        return (
            f"{self.table}:"
            f" {facts}\n{plain_table(['one run', *shown], cells, [False, *[True] * len(shown)])}"
        )


def _told(value: float | None) -> str:
    return (
        ""
        if value is None
        else (
            str(value)
            if isinstance(value, int)
            else f"{value:.1f}"
            if value >= 0.1
            else f"{value:.3f}"
        )
    )


log = logging.getLogger(__name__)


def estimate(
    table: str,
    *,
    rows: Sequence[str] | None = None,
    epochs: int | None = None,
    device: Execution | str = "auto",
) -> Costs:
    """Measures a few steps of every row and says what one run of each will take, evaluation on test
    users not counted.

    Args:
        table: One of `table_names`.
        rows: Some of the rows only.
        epochs: At most, in place of the configurations' number.
        device: Where the runs will be.

    Raises:
        ConfigError: if there is no such table or row.
    """
    definition, execution = read_definition(table), Execution.of(device).resolved()
    device = execution.device
    with using_threads(execution.threads), tempfile.TemporaryDirectory(prefix="coterie-") as folder:
        few, many = (_random_data(Path(folder) / str(n), n, definition) for n in (FEW, MANY))
        log.info("memory of %s and %s users", f"{few.n_users:,}", f"{many.n_users:,}")
        growth = (_apart(_held, many.folder, device) - _apart(_held, few.folder, device)) / (
            many.n_users - few.n_users
        )
        users = max(definition.size.users - few.n_users, 0) * growth
        costs = {}
        for row in definition.choose(rows):
            log.info("%s", row.name)
            costs[row.name] = _cost(
                row.configuration(epochs=epochs), definition, few, users, device
            )
    facts = {**definition.size.model_dump(), "bytes_a_user": round(growth), **machine(device)}
    return Costs(table, facts, costs)


def _random_data(folder: Path, n_users: int, definition: Definition) -> Dataset:
    """A data set of the table's items and density, saved and read again."""
    size = definition.size
    n_users = min(n_users, size.users * n_users // MANY)
    held_out = min(HELD_OUT, n_users // 6)
    matrix = random_histories(n_users, size.items, max(1, size.interactions // size.users))
    indptr = matrix.indptr.astype(np.int64)
    interactions = Interactions(
        IdMap.of(np.arange(n_users)),
        IdMap.of(np.arange(size.items)),
        indptr,
        matrix.indices.astype(np.int32),
    )
    user_part = choose_users(n_users, held_out, 0)
    Dataset(interactions, Split(user_part, hide_items(indptr, user_part, 0))).save(folder)
    return Dataset.load(folder)


def _cost(
    config: RunConfig, definition: Definition, few: Dataset, users: float, device: str
) -> Cost:
    size, model, training = definition.size, config.model, config.training
    held_out = definition.data.held_out_users or 0
    train_users, cases = size.users - 2 * held_out, held_out or size.users
    if isinstance(model, LinearPathConfig):
        # The path would be solved at full size; its own cost is added instead.
        network = _cost(
            config.model_copy(update={"model": model.without_path()}),
            definition,
            few,
            users,
            device,
        )
        # A sparse path takes little beside the network; it is not measured.
        return (
            _together(network, _cost_of_ease(size.items, train_users, few, users))
            if model.path is None or isinstance(model.path, EaseConfig)
            else network
        )
    if isinstance(model, EaseConfig):
        return _cost_of_ease(size.items, train_users, few, users)
    if isinstance(model, PopularityConfig):
        seconds, peak = _apart(_fitted, few.folder, config)
        return Cost(seconds * size.users / few.n_users / 3600, (peak + users) / GIB)
    if config.network_free():
        return Cost(None, None)
    a_user, a_case, peak, gpu = _apart(_descended, few.folder, config, device)
    seconds = training.epochs * (train_users * a_user + cases * a_case / training.validate_every)
    # On a GPU the histories lie there too, beside those in memory: counted twice, to be safe.
    return Cost(
        seconds / 3600,
        (peak + users) / GIB,
        None if gpu is None else (gpu + users) / GIB,
        training.epochs,
    )


def _together(network: Cost, path: Cost) -> Cost:
    """One after the other in time, and at worst at once in memory."""
    hours, gib = (
        (a or 0) + (b or 0) for a, b in ((network.hours, path.hours), (network.gib, path.gib))
    )
    return Cost(hours, gib, network.gpu_gib, network.epochs)


def _cost_of_ease(n_items: int, train_users: int, few: Dataset, users: float) -> Cost:
    small, large = EASE_ITEMS
    solved = min(n_items, train_users) / n_items
    (seconds, peak), (more_seconds, higher_peak) = (
        _apart(_solved, int(solved * items), items) for items in EASE_ITEMS
    )
    counting = _apart(_counted, few.folder) * train_users / few.train.shape[0]
    solving = max(more_seconds - seconds, 0) * n_items**3 / (large**3 - small**3)
    memory = peak + max(higher_peak - peak, 0) * (n_items**2 - small**2) / (large**2 - small**2)
    return Cost((counting + solving) / 3600, (memory + users) / GIB)


def _apart(measure: Callable[..., Measured], *arguments: Any) -> Measured:
    """What a measurement gives in a fresh process, with as many threads as this one."""
    context = get_context("spawn")
    with ProcessPoolExecutor(
        1,
        mp_context=context,
        initializer=torch.set_num_threads,
        initargs=(torch.get_num_threads(),),
    ) as pool:
        return pool.submit(measure, *arguments).result()


def _peak_bytes() -> int:
    """Most memory this process ever had."""
    if sys.platform == "linux":
        # getrusage counts the starting process too.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(
            next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _held(folder: Path, device: str) -> int:
    """Peak of holding a data set as training does."""
    smallest = RunConfig.of({"model": {"name": "mult-dae", "latent_dim": 1}})
    TrainingLoop(Dataset.load(folder), smallest, Execution(device))
    return _peak_bytes()


def _descended(
    folder: Path, config: RunConfig, device: str
) -> tuple[float, float, int, int | None]:
    """Seconds a training user and a validation case in the second epoch, peak of memory and of the
    GPU's.
    """
    run = TrainingLoop(Dataset.load(folder), config, Execution(device))
    seconds = []
    for _ in range(2):
        started = _clock(device)
        for users, part in run.batches():
            run.advance(users, part)
        _finish(device)
        trained = _clock(device)
        run.close_epoch()
        _finish(device)
        seconds.append((trained - started, _clock(device) - trained))
    (training, validating), gpu = (
        seconds[1],
        (torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else None),
    )
    return (
        training / len(run.rows),
        validating / max(len(run.cases.user_index), 1),
        _peak_bytes(),
        gpu,
    )


def _clock(device: str) -> float:
    """Seconds; of one CPU thread the processor's own, which whatever else runs on the machine
    hardly lengthens.
    """
    return (
        time.process_time()
        if device == "cpu" and torch.get_num_threads() == 1
        else time.perf_counter()
    )


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _fitted(folder: Path, config: RunConfig) -> tuple[float, int]:
    data = Dataset.load(folder)
    started = _clock("cpu")
    train(data, config, device="cpu")
    return _clock("cpu") - started, _peak_bytes()


def _solved(n_users: int, n_items: int) -> tuple[float, int]:
    """Seconds and peak of EASE on users with an item each: what is solved does not depend on how
    many they have.
    """
    histories = eye_array(n_users, n_items, dtype=np.float32, format="csr")
    started = _clock("cpu")
    EaseConfig().fit(histories)
    return _clock("cpu") - started, _peak_bytes()


def _counted(folder: Path) -> float:
    """Seconds of XᵀX."""
    rows = Dataset.load(folder).train
    started = _clock("cpu")
    _ = rows.T @ rows
    return _clock("cpu") - started
