"""Where and how work runs: device, threads, precision, compilation and processes, as one value.

It is resolved once, where work begins; what runs below is given the resolved value whole.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import torch

from coterie.errors import ConfigError
from coterie.running.fork import check_threads
from coterie.running.world import ALONE, World, cuda_of_process, join_world

Precision: TypeAlias = Literal["float32", "bf16"]


@dataclass(frozen=True)
class Execution:
    """Where and how work runs.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, …; ``"auto"`` is CUDA where there is one. Under
            a launcher both ``"auto"`` and ``"cuda"`` are the device LOCAL_RANK of the machine.
        threads: Of the processor; None takes as many as torch does by itself.
        precision: ``"bf16"`` runs the products of training in bfloat16.
        compile: Whether training compiles the layers between the first and the last with
            `torch.compile`, which needs a C++ compiler and takes some seconds.
        world: The processes that train together; found by `begin`.

    Raises:
        ConfigError: if a value is none of those.

    Example:
        >>> Execution.of("cpu").resolved().device
        'cpu'
        >>> Execution("gpu").resolved()
        Traceback (most recent call last):
        ...
        coterie.errors.ConfigError: the device must be auto, cpu or a CUDA device, found 'gpu'; ...
    """

    device: str = "auto"
    threads: int | None = None
    precision: Precision = "float32"
    compile: bool = False
    world: World = ALONE

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise ConfigError(
                f"precision must be one of {', '.join(get_args(Precision))}, found"
                f" {self.precision!r}; choose one of them."
            )
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads must be at least 1, found {self.threads}; or leave it out.")

    @classmethod
    def of(cls, device: "Execution | str") -> "Execution":
        """A device's name with defaults for the rest; an execution as it is."""
        return device if isinstance(device, Execution) else cls(device)

    def resolved(self) -> "Execution":
        """The same on a device that is there.

        Raises:
            ConfigError: if there is no such device.
        """
        return replace(self, device=_found(self.device))

    def as_json(self) -> dict[str, Any]:
        """What `of_json` reads back in another process, whose world is its own."""
        fields = ("device", "threads", "precision", "compile")
        return {name: getattr(self, name) for name in fields}

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> "Execution":
        """From what `as_json` gave."""
        return cls(**values)

    @contextmanager
    def begin(self) -> Iterator["Execution"]:
        """Resolves the device, takes the threads, and joins the processes of the launch.

        Raises:
            ConfigError: if there is no such device, or the launch does not say how to reach others.
        """
        here = self.resolved()
        with using_threads(here.threads), join_world(here.device) as world:
            yield replace(here, world=world)


ON_CPU = Execution("cpu")
"""One process on the processor, with nothing asked for."""


@contextmanager
def using_threads(number: int | None) -> Iterator[None]:
    """Torch computes with so many threads inside; None leaves them as they are.

    Raises:
        ConfigError: if they are more than one in a forked process.
    """
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(check_threads(number))
    try:
        yield
    finally:
        if number is not None:
            torch.set_num_threads(before)


def _found(name: str) -> str:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise _no_such(name) from error
    if device.type == "cpu":
        return "cpu"
    if device.type != "cuda":
        raise _no_such(name)
    n_devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not n_devices:
        raise ConfigError(
            f"device {name!r} needs CUDA, this machine or this torch has none; use cpu."
        )
    if (device.index or 0) >= n_devices:
        raise ConfigError(
            f"device {name!r} must be one of the {n_devices} that are here, cuda:0 to"
            f" cuda:{n_devices - 1}; choose one of them."
        )
    return cuda_of_process(n_devices) if device.index is None else name


def _no_such(name: str) -> ConfigError:
    return ConfigError(
        f"the device must be auto, cpu or a CUDA device, found {name!r}; as in cuda or cuda:1."
    )
