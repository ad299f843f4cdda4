"""The lists of a few users, repeated by a fresh process from the model's files alone."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from coterie.data.ids import Id
from coterie.errors import ArtifactError
from coterie.files import write_json
from coterie.training.trained_model import TrainedModel

_K = 20


def lists_of(model: TrainedModel, histories: Mapping[str, Sequence[Id]]) -> dict[str, list[Id]]:
    """The best items of each user, in order."""
    found = model.recommend(dict(histories), k=_K).table
    users, items = (found[name].to_pylist() for name in ("user_id", "item_id"))
    lists: dict[str, list[Id]] = {user: [] for user in histories}
    for user, item in zip(users, items, strict=True):
        lists[str(user)].append(item)
    return lists


def repeated(folder: Path, model: TrainedModel, histories: Mapping[str, Sequence[Id]]) -> float:
    """The share of users whose list a fresh process gives, too.

    Args:
        folder: Of the saved model.
        model: The same in memory.
        histories: Of the users, at least one.

    Raises:
        ArtifactError: if the fresh process cannot load the model.
    """
    asked = folder.parent / "golden.json"
    write_json(asked, histories)
    command = [sys.executable, "-m", "coterie.jobs.golden", str(folder), str(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ArtifactError(
            f"{folder}: a fresh process must be able to load the model, it ended with"
            f" {done.returncode}: {done.stderr.strip()[-500:]}"
        )
    expected, found = lists_of(model, histories), json.loads(done.stdout)
    same = [bool(found[user] == expected[user]) for user in expected]
    return sum(same) / len(same)


def main(folder: str, asked: str) -> None:
    """Prints the lists as JSON."""
    model = TrainedModel.load(folder)
    histories = json.loads(Path(asked).read_text(encoding="utf-8"))
    sys.stdout.write(json.dumps(lists_of(model, histories)))


if __name__ == "__main__":
    main(*sys.argv[1:])
