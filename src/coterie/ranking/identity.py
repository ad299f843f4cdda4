"""Which model made a list: its name, its fingerprint and the run it comes from.

Apart from recommending because whoever reads lists must know it, too.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coterie.fingerprints import fingerprint_of
from coterie.ranking.scorer import CatalogueScorer

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ModelIdentity:
    """What sets a model apart from all others.

    Args:
        name: Its kind, as in ``mult-vae``.
        fingerprint: Hex SHA-256 over all that changes a score, an id or the fall-back.
        run_id: Of the training run, where the model knows it.
    """

    name: str
    fingerprint: str
    run_id: str | None = None

    @classmethod
    def of(cls, model: CatalogueScorer) -> "ModelIdentity":
        """The model's own ``identity``; of a scorer without one, the name of its class and the
        fingerprint of all its fields.

        Example:
            >>> from types import SimpleNamespace
            >>> from coterie.data.ids import IdMap
            >>> def model(weight, power=1.0):
            ...     items, popularity = IdMap.of(["blue", "red"]), np.array([2, 1])
            ...     return SimpleNamespace(
            ...         items=items, popularity=popularity, weight=np.array(weight), power=power
            ...     )
            >>> a, same, b, c = (ModelIdentity.of(model(*x)) for x in ([1], [1], [2], [1, 0.5]))
            >>> a == same, a == b, a == c
            (True, False, False)
        """
        own = getattr(model, "identity", None)
        if isinstance(own, ModelIdentity):
            return own
        return cls(type(model).__name__, fingerprint(model.items.values.to_pylist(), _parts(model)))


def fingerprint(ids: list[int] | list[str], parts: Iterable[tuple[str, Any]]) -> str:
    """Hex SHA-256 over item ids and named parts.

    Args:
        ids: ``[n_items]``; 7 and "7" differ.
        parts: Tensors and arrays by their bytes, all else by its ``repr``.
    """
    return fingerprint_of([("ids", repr(ids).encode()), *map(_named_bytes, parts)])


def _named_bytes(part: tuple[str, Any]) -> tuple[str, bytes | memoryview]:
    name, value = part
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{name} {value.dtype} {tuple(value.shape)}", _bytes(value)
    return name, repr(value).encode()


def _parts(model: CatalogueScorer) -> Iterator[tuple[str, Any]]:
    """Every module, tensor, array, number and text among the model's fields."""
    # Not what a frozen model has cached since.
    names = [field.name for field in fields(model)] if is_dataclass(model) else list(vars(model))
    for name in names:
        value = getattr(model, name)
        if hasattr(value, "state_dict"):
            yield from ((f"{name}.{key}", tensor) for key, tensor in value.state_dict().items())
        elif hasattr(value, "dtype") or isinstance(value, int | float | str):
            yield name, value


def _bytes(array: "torch.Tensor | np.ndarray | np.generic") -> memoryview:
    if hasattr(array, "detach"):
        import torch  # noqa: PLC0415 - whoever holds a tensor has it

        # As bytes already here, because NumPy does not know every type of a tensor.
        array = array.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
