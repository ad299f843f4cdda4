"""The top k of all users against the single product that no scoring of all items can do without."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch
from scipy.sparse import csr_array

from coterie.config import RunConfig
from coterie.data.ids import IdMap
from coterie.data.split import Cases
from coterie.evaluation.evaluate import evaluate
from coterie.lab.bench.turns import Turns, machine, random_histories, take_turns
from coterie.models.multvae import MultVAEConfig
from coterie.networks.ease import Ease
from coterie.networks.network import Network
from coterie.objectives.likelihood import ALIGNMENT
from coterie.ranking.engine import recommend
from coterie.ranking.histories import Histories
from coterie.ranking.ranker import Ranker
from coterie.training.trained_model import TrainedModel


def bench_scoring(
    n_items: int = 20108,
    *,
    n_users: int = 2000,
    block_size: int = 500,
    k: int = 100,
    items_per_user: int = 73,
    model: MultVAEConfig | None = None,
    rounds: int = 7,
    device: str = "cpu",
    ease: bool = False,
) -> Turns:
    """Times the ranking of all unseen items for random histories, by a network with its initial
    weights.

    Args:
        n_items: Size of the catalogue.
        n_users: Users scored in a round.
        block_size: Users scored at once.
        k: Length of the lists.
        items_per_user: Mean length of a history.
        model: With a hidden layer; I-600-200-600-I by default.
        rounds: How often each takes its turn.
        device: ``"cpu"`` or ``"cuda"``.
        ease: Whether EASE takes part; it needs items² floats.

    Returns:
        ``coterie`` encodes, decodes, leaves out what was seen and selects; ``evaluation`` also
        measures the three default metrics on as many hidden items; ``with ids`` looks ids up and
        makes the table of recommendations. ``product`` is users × hidden × items into memory
        allocated once, ``aligned product`` the same with rows on 64-byte boundaries, as Coterie's
        are: a lower floor. With ``users_per_second``, ``ratio_to_product``,
        ``ratio_to_aligned_product``, ``ratio_of_evaluation`` and ``ratio_of_ids``.

    Example:
        >>> turns = bench_scoring(60, n_users=20, block_size=10, k=5, items_per_user=4, rounds=1)
        >>> sorted(turns.ratios)[:2]
        ['ratio_of_evaluation', 'ratio_of_ids']
    """
    model = model or MultVAEConfig()
    matrix = random_histories(n_users, n_items, items_per_user)
    scorer = _model(
        model.build(n_items, torch.Generator().manual_seed(0)),
        RunConfig(model=model),
        device,
    )
    contestants: dict[str, Callable[[], object]] = {
        "coterie": _rank(scorer, matrix, block_size, k),
        "product": _product(n_users, n_items, model.hidden_dims[0], block_size, device),
        "aligned product": _product(
            n_users, n_items, model.hidden_dims[0], block_size, device, ALIGNMENT
        ),
        "evaluation": _evaluation(scorer, matrix, block_size, k),
        "with ids": _with_ids(scorer, matrix, block_size, k),
    }
    if ease:
        network = Ease(n_items)
        network.weight.normal_(generator=torch.Generator().manual_seed(0))
        contestants["ease"] = _rank(
            _model(network, RunConfig.of({"model": {"name": "ease"}}), device),
            matrix,
            block_size,
            k,
        )
    turns = Turns(take_turns(contestants, rounds, device), n_users)
    ratios = {
        "users_per_second": n_users / turns.median("coterie"),
        "ratio_to_product": turns.ratio("coterie", "product"),
        "ratio_to_aligned_product": turns.ratio("coterie", "aligned product"),
        "ratio_of_evaluation": turns.ratio("evaluation", "coterie"),
        "ratio_of_ids": turns.ratio("with ids", "coterie"),
    }
    if ease:
        ratios["ratio_to_ease"] = turns.ratio("coterie", "ease")
    hidden = model.hidden_dims[0]
    facts = {
        "items": n_items,
        "block": block_size,
        "k": k,
        "items_per_user": round(matrix.nnz / n_users),
    }
    facts |= {
        "shape": f"I-{hidden}-{model.latent_dim}-{hidden}-I",
        "rounds": rounds,
        **machine(device),
    }
    return Turns(turns.seconds, n_users, facts, ratios)


def _model(network: Network, config: RunConfig, device: str) -> TrainedModel:
    items = IdMap.of(range(network.n_items))
    return TrainedModel(
        network.to(device).eval(), config, items, None, np.zeros(network.n_items, dtype=np.int64)
    )


def _rank(scorer: TrainedModel, matrix: csr_array, block_size: int, k: int) -> Callable[[], None]:
    ranker = Ranker(scorer, k)
    blocks = [matrix[start : start + block_size] for start in range(0, matrix.shape[0], block_size)]

    def run() -> None:
        for block in blocks:
            ranker.rank(block, seen=block)

    return run


def _product(
    n_users: int, n_items: int, hidden: int, block_size: int, device: str, align: int = 1
) -> Callable[[], None]:
    h, weight = (
        torch.randn(block_size, hidden, device=device),
        torch.randn(n_items, hidden, device=device),
    )
    scores = torch.empty(block_size, -(-n_items // align) * align, device=device)[:, :n_items]

    def run() -> None:
        for start in range(0, n_users, block_size):
            n = min(block_size, n_users - start)
            torch.mm(h[:n], weight.t(), out=scores[:n])

    return run


def _evaluation(
    scorer: TrainedModel, matrix: csr_array, block_size: int, k: int
) -> Callable[[], object]:
    """Measures as many items a user as were folded in, at the same k."""
    n_users, n_items = matrix.shape
    held_out = random_histories(n_users, n_items, max(matrix.nnz // n_users, 1), seed=1)
    held_out = csr_array((held_out - held_out.multiply(matrix)) > 0).astype(np.float32)
    some = np.flatnonzero(np.diff(held_out.indptr))
    cases = Cases(some, matrix[some], held_out[some])
    metrics = (f"recall@{min(20, k)}", f"recall_of_held_out@{k}", f"ndcg@{k}")
    return lambda: evaluate(scorer, cases, metrics=metrics, block_size=block_size)


def _with_ids(
    scorer: TrainedModel, matrix: csr_array, block_size: int, k: int
) -> Callable[[], object]:
    users = IdMap.of(range(matrix.shape[0]))
    histories = Histories(
        users, matrix.indptr.astype(np.int64), pa.array(matrix.indices.astype(np.int64))
    )
    return lambda: recommend(scorer, histories, k, block_size=block_size)
