"""Recommendations read back are those that were written."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coterie.data.ids import Id
from coterie.errors import ArtifactError, NotFoundError
from coterie.ranking.engine import recommend, recommend_to_file
from coterie.ranking.identity import ModelIdentity
from coterie.ranking.written import read_recommendations
from coterie.stream.to_folder import recommend_to_folder
from scorer_contract import LinearScorer

MODEL = LinearScorer.random(40, 0, whole=True)


def histories() -> dict[Id, list[Id]]:
    rng = np.random.default_rng(0)
    lists: dict[Id, list[Id]] = {
        user: rng.integers(0, 44, rng.integers(0, 9)).tolist() for user in range(25)
    }
    # Nothing is left for somebody who has had all.
    return {**lists, 11: list(range(40))}


def test_a_folder_comes_back_as_its_lists(tmp_path: Path) -> None:
    written = recommend(MODEL, histories(), k=5)
    done = recommend_to_folder(
        MODEL, histories(), tmp_path, 5, shard_users=10, deny=["mauve"], threads=1
    )
    back = read_recommendations(tmp_path)
    assert done.n_shards == 3
    assert back.table.equals(written.table)
    assert back.users.ids_of(range(len(back))) == [user for user in histories() if user != 11]
    for user in back.users.ids_of(range(len(back))):
        assert back.for_user(user) == written.for_user(user)
    assert back.model == done.model == ModelIdentity.of(MODEL)
    assert (back.unknown_allow, back.unknown_deny) == ((), ("mauve",))


def test_a_file_and_an_empty_folder_come_back(tmp_path: Path) -> None:
    recommend_to_file(MODEL, histories(), tmp_path / "a.parquet", 5)
    back = read_recommendations(tmp_path / "a.parquet")
    assert back.table.equals(recommend(MODEL, histories(), k=5).table)
    assert (len(back), back.model) == (24, None)
    recommend_to_folder(MODEL, {}, tmp_path / "nobody", 5)
    assert len(read_recommendations(tmp_path / "nobody")) == 0


def written_as(path: Path, **columns: Any) -> None:
    row = {"user_id": [1, 2], "rank": [1, 1], "item_id": [5, 6], "score": [1.0, 2.0]}
    pq.write_table(pa.table({**row, "source": ["model", "model"], **columns}), path)


def test_what_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing was found there"):
        read_recommendations(tmp_path / "none")
    written_as(tmp_path / "a.parquet")
    assert len(read_recommendations(tmp_path / "a.parquet")) == 2
    pq.write_table(pa.table({"user_id": [1], "item_id": [2]}), tmp_path / "few.parquet")
    written_as(tmp_path / "apart.parquet", user_id=[1, 2], rank=[1, 1])
    table = pq.read_table(tmp_path / "apart.parquet")
    pq.write_table(pa.concat_tables([table, table]), tmp_path / "apart.parquet")
    (tmp_path / "a.csv").write_text("user_id,item_id\n1,2\n")
    for name in ("few.parquet", "apart.parquet", "a.csv"):
        with pytest.raises(ArtifactError, match=r"must be recommendations in Parquet"):
            read_recommendations(tmp_path / name)


def test_a_folder_that_is_not_complete_or_damaged_is_refused(tmp_path: Path) -> None:
    recommend_to_folder(MODEL, histories(), tmp_path, 5)
    part = tmp_path / "part-00000.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[:-9])
    with pytest.raises(ArtifactError, match="bytes differ"):
        read_recommendations(tmp_path)
    part.write_bytes(whole)
    (tmp_path / "_manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"must hold _manifest\.json"):
        read_recommendations(tmp_path)
