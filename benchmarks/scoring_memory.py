"""Peak memory of the scoring stream for N and for 10 N users: it must not grow with them.

    python benchmarks/scoring_memory.py --users 20000 --items 2000

Each run is a process of its own, so that its peak is its own. Histories come as lists (Parquet, one
row group), as a data set folder and as pairs; the model is an inner product with random factors.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.numpy import save_file
from scipy.sparse import csr_array
from torch import Tensor

from coterie.data.dataset import SCHEMA
from coterie.data.ids import IdMap
from coterie.files import write_manifest
from coterie.stream.to_folder import recommend_to_folder

BLOCK = 10_000


def lists(
    n_users: int, n_items: int, items_per_user: int, start: int
) -> tuple[np.ndarray, np.ndarray]:
    """Row starts and ascending items of a block of users."""
    rng = np.random.default_rng(start)
    drawn = np.sort(rng.integers(0, n_items, (n_users, items_per_user)), axis=1)
    kept = np.concatenate([np.ones((n_users, 1), dtype=bool), np.diff(drawn, axis=1) > 0], axis=1)
    return np.concatenate([[0], np.cumsum(kept.sum(axis=1))]), drawn[kept]


def write(form: str, folder: Path, n_users: int, n_items: int, items_per_user: int) -> Path:
    """The histories in one of the three forms."""
    blocks = [
        (start, *lists(min(BLOCK, n_users - start), n_items, items_per_user, start))
        for start in range(0, n_users, BLOCK)
    ]
    users = pa.array(range(n_users), pa.int64())
    offsets = np.concatenate(
        [[0], np.cumsum(np.concatenate([np.diff(offsets) for _, offsets, _ in blocks]))]
    )
    items = np.concatenate([items for _, _, items in blocks])
    path = folder / "histories.parquet"
    if form == "lists":
        column = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(items))
        pq.write_table(
            pa.table({"user_id": users, "item_ids": column}), path, row_group_size=n_users
        )
    elif form == "pairs":
        pq.write_table(
            pa.table(
                {"user_id": np.repeat(np.arange(n_users), np.diff(offsets)), "item_id": items}
            ),
            path,
        )
    else:
        path = folder / "data"
        path.mkdir()
        save_file(
            {"indptr": offsets.astype(np.int64), "indices": items.astype(np.int32)},
            path / "interactions.safetensors",
        )
        pq.write_table(pa.table({"user_id": users}), path / "users.parquet")
        pq.write_table(pa.table({"item_id": range(n_items)}), path / "items.parquet")
        write_manifest(path, SCHEMA, fingerprint="0")
    return path


class Factors:
    """Scores are inner products of random factors."""

    def __init__(self, n_items: int) -> None:
        self.n_items, self.items, self.titles = n_items, IdMap.of(range(n_items)), None
        self.popularity = np.ones(n_items)
        self.factors = torch.randn(n_items, 64, generator=torch.Generator().manual_seed(0))

    def user_factors(self, histories: csr_array) -> Tensor:
        """Sums over the history."""
        return torch.from_numpy(histories @ self.factors.numpy())

    def item_factors(self) -> Tensor:
        """The random factors."""
        return self.factors

    def item_vectors(self) -> Tensor:
        """The random factors."""
        return self.factors

    def score(self, histories: csr_array) -> Tensor:
        """All inner products."""
        return self.user_factors(histories) @ self.factors.T


def score(histories: str, out: str, n_items: int, shard_users: int) -> None:
    """Runs the stream in this process and prints what it took."""
    began = time.perf_counter()
    done = recommend_to_folder(Factors(n_items), histories, out, 100, shard_users=shard_users)
    print(
        json.dumps(
            {"users": done.n_users, "seconds": time.perf_counter() - began, "peak_mib": peak_mib()}
        )
    )


def peak_mib() -> float:
    """Of this process since it began; ``getrusage`` would count its parent's as well (Linux
    only).
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--items-per-user", type=int, default=50)
    parser.add_argument("--shard-users", type=int, default=8_192)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--score", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.score:
        histories, out = asked.score
        score(histories, out, asked.items, asked.shard_users)
        return
    results = []
    for form in ("lists", "data set", "pairs"):
        for n_users in (asked.users, 10 * asked.users):
            with tempfile.TemporaryDirectory() as name:
                source = write(form, Path(name), n_users, asked.items, asked.items_per_user)
                command = [
                    sys.executable,
                    __file__,
                    "--items",
                    str(asked.items),
                    "--shard-users",
                    str(asked.shard_users),
                ]
                command += ["--score", str(source), str(Path(name) / "out")]
                answer = subprocess.run(
                    command, check=True, capture_output=True, text=True, env=os.environ
                )
            results.append({"histories": form, **json.loads(answer.stdout)})
            shown = results[-1]
            print(
                f"{form:10} {shown['users']:>12,} users {shown['seconds']:>8.1f} s"
                f" {shown['peak_mib']:>8.0f} MiB at most",
                flush=True,
            )
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
