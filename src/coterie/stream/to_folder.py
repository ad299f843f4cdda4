"""Recommending to any number of users: histories in as a stream, a folder of Parquet out, stopped
and resumed at will.

Memory holds one shard's histories and one block's scores, whatever the number of users.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Unpack, cast

import torch

import coterie
from coterie.data.ids import Id, IdMap
from coterie.errors import ArtifactError, CannotWriteError, ConflictError
from coterie.ranking.engine import WrittenRecommendations
from coterie.ranking.histories import Histories, UserItems
from coterie.ranking.identity import ModelIdentity
from coterie.ranking.options import RankingFields, RankingOptions
from coterie.ranking.recommender import Recommender
from coterie.ranking.scorer import CatalogueScorer
from coterie.ranking.written import MANIFEST, REQUEST, SCHEMA
from coterie.running.progress import Progress, Update, silent
from coterie.stream.history_source import GivenHistories, HeldHistories, open_histories
from coterie.stream.shards import (
    ShardJob,
    ShardResult,
    StreamRequest,
    Tick,
    most_common,
    tally_name,
)
from coterie.stream.storage import WORK, Folder


class Engine(Protocol):
    """Who scores the shards: this process, or many."""

    @property
    def threads(self) -> int:
        """Threads that score a shard, where neither the caller nor an earlier run says."""
        ...

    def run(
        self, recommender: Recommender, job: ShardJob, numbers: Sequence[int], tick: Tick
    ) -> Iterator[ShardResult]:
        """Scores the shards ``numbers`` in any order and yields each as it is finished.

        ``tick`` is called at least every few seconds; closing the iterator ends the work.
        """
        ...


@dataclass(frozen=True)
class LocalEngine:
    """One shard after the other in this process.

    Args:
        threads: Threads that score a shard, where neither the caller nor an earlier run says; by
            default as many as torch uses.
    """

    threads: int = field(default_factory=torch.get_num_threads)

    def run(
        self, recommender: Recommender, job: ShardJob, numbers: Sequence[int], tick: Tick
    ) -> Iterator[ShardResult]:
        """Scores the shards in order; ``tick`` is called after each block."""
        return (job.score(recommender, number, tick) for number in numbers)


@dataclass(frozen=True)
class FolderRecommendations(WrittenRecommendations):
    """A complete folder of recommendations.

    `unknown_items` is made of the 100 with the most users in every shard, so that memory stays
    bounded: complete and exact while no shard has more.

    Args:
        path: The folder.
        n_shards: Its Parquet files.
        n_unknown: Pairs of a user and an item that the model has never seen.
    """

    path: str
    n_shards: int
    n_unknown: int


def recommend_to_folder(
    model: CatalogueScorer,
    histories: GivenHistories | Histories | UserItems | str | Path,
    path: str | Path,
    options: RankingOptions | int = 10,
    *,
    shard_users: int = 65_536,
    threads: int | None = None,
    engine: Engine | None = None,
    progress: Progress = silent,
    **fields: Unpack[RankingFields],
) -> FolderRecommendations:
    """Ranks as `coterie.ranking.engine.recommend` does, for any number of users, into a folder.

    The folder holds ``part-00000.parquet``, … with user_id, rank, item_id, score and source, the
    request as ``_request.json`` and, once it is complete, ``_manifest.json`` with row counts and
    checksums; both name the model, its fingerprint and its run. Readers of Parquet folders read it
    as it is. After an interruption of any kind the same call goes on with the shards that are
    missing or damaged; on a complete folder it returns at once. The bytes of the parts do not
    depend on interruptions or on the engine.

    Args:
        model: A trained model.
        histories: Everybody's: what `coterie.stream.history_source.open_histories` opens, or its
            answer, or histories in memory. Pairs are first sorted by user, on disk.
        path: Folder, locally or behind an fsspec URL (``s3://…``); new, empty, or of the same
            request.
        options: Which items, how many and how; a number is ``k``.
        shard_users: Users in a file; their histories are in memory at once, and a crash loses no
            more than a shard.
        threads: Threads that score a shard, as their number may change the rounding; by default the
            engine's own, or what the folder was begun with.
        engine: `LocalEngine` by default.
        progress: Called after each block with users done and in all. It may raise to stop: what is
            finished stays.
        fields: Single fields of `RankingOptions`, laid over ``options``.

    Raises:
        ConfigError: if an option cannot be honoured.
        ConflictError: if the folder holds another request or something else.
        CannotWriteError: if the folder cannot be written.
        SourceError: if the histories cannot be read, or a user has two rows of lists.
        DataError: if no item of ``allow`` is known.
        NumericalError: if the model's scores are not finite.

    Example:
        >>> from types import SimpleNamespace
        >>> import numpy as np
        >>> from coterie.data.ids import IdMap
        >>> together = np.array([[9, 1, 4], [1, 9, 2], [4, 2, 9]], dtype=np.float32)
        >>> model = SimpleNamespace(
        ...     n_items=3,
        ...     items=IdMap.of(["blue", "red", "teal"]),
        ...     titles=None,
        ...     popularity=np.array([5, 9, 7]),
        ...     together=together,
        ...     score=lambda rows: torch.from_numpy(rows @ together),
        ... )
        >>> done = recommend_to_folder(
        ...     model, {"ann": ["blue"], "new": []}, "memory://recommendations", k=2
        ... )
        >>> done.n_shards, done.n_users, done.n_rows
        (1, 2, 4)
    """
    engine = LocalEngine() if engine is None else engine
    given_options = RankingOptions.of(options, **fields)
    folder, given, identity = (
        Folder(str(path)),
        _given(histories, model.items),
        ModelIdentity.of(model),
    )
    begun = _begun(folder)
    request = StreamRequest(
        identity.fingerprint,
        given.fingerprint,
        replace(given_options, index=None),
        shard_users,
        threads if threads is not None else begun["threads"] if begun else engine.threads,
        None if given_options.index is None else given_options.index.name,
    )
    recommender = request.recommender(model, given_options.index)
    _agree(folder, begun, request, identity)
    if not _is_complete(folder):
        job = ShardJob(request, given.source(folder), folder)
        results = _score(recommender, job, engine, progress)
        _complete(job, results, recommender, identity)
    folder.remove(WORK)
    return _summary(folder)


def _given(
    histories: GivenHistories | Histories | UserItems | str | Path, items: IdMap
) -> GivenHistories:
    if isinstance(histories, str | Path):
        return open_histories(histories)
    if hasattr(histories, "source"):
        return cast(GivenHistories, histories)
    return HeldHistories(Histories.of(histories, items))


def _begun(folder: Folder) -> dict[str, Any] | None:
    """The request that the folder was begun with, if it was."""
    names = set(folder.sizes()) - {WORK}
    if not names:
        return None
    if REQUEST not in names and "request.json" in names:
        raise ConflictError(
            f"{folder.path}: must be empty, new, or begun by this version, found the lists of"
            " Coterie 0.1, which did not note all that the model is; they can be read, but not gone"
            " on with: choose another folder."
        )
    if REQUEST not in names:
        raise ConflictError(
            f"{folder.path}: must be empty, new, or begun by the same request, found other files;"
            " choose another folder."
        )
    begun: dict[str, Any] = folder.read_json(REQUEST)
    if not isinstance(begun, dict) or begun.get("schema") != SCHEMA:
        raise ArtifactError(
            f"{folder.url(REQUEST)}: schema must be {SCHEMA!r}; use the Coterie version that wrote"
            " it."
        )
    return begun


def _agree(
    folder: Folder, begun: dict[str, Any] | None, request: StreamRequest, identity: ModelIdentity
) -> None:
    """Notes the request in a new folder, and refuses a folder that was begun with another."""
    wanted = request.to_json()
    if begun is None:
        noted = {"schema": SCHEMA, **_named(identity), **wanted}
        try:
            folder.write_json(REQUEST, noted)
        except OSError as error:
            raise CannotWriteError(
                f"{folder.path}: must be a folder that can be written ({error}); choose another."
            ) from error
        return
    differences = [
        f"{name} {_short(begun.get(name))}, now {_short(value)}"
        for name, value in wanted.items()
        if begun.get(name) != value
    ]
    if differences:
        raise ConflictError(
            f"{folder.path} was begun with {'; '.join(differences)}. Ask as before, or choose"
            " another folder."
        )


def _named(identity: ModelIdentity) -> dict[str, Any]:
    """What a file of the folder says of the model."""
    return {
        "model": identity.fingerprint,
        "model_name": identity.name,
        "run_id": identity.run_id,
    }


def _short(value: Any) -> str:
    text = f"{len(value)} ids" if isinstance(value, list) else str(value)
    return text if len(text) <= 20 else f"{text[:12]}…"


def _is_complete(folder: Folder) -> bool:
    """Whether all is there; a complete folder that has lost a file goes back to its state before
    the manifest.
    """
    manifest = folder.read_json(MANIFEST)
    if manifest is None:
        return False
    results, sizes = [ShardResult.of(one) for one in manifest["shards"]], folder.sizes()
    if all(sizes.get(result.name) == result.bytes for result in results):
        return True
    for result in results:
        folder.write_json(tally_name(result.number), asdict(result))
    folder.remove(MANIFEST)
    return False


def _score(
    recommender: Recommender, job: ShardJob, engine: Engine, progress: Progress
) -> list[ShardResult]:
    """Scores what is not finished; the results of all shards in order."""
    results = {result.number: result for result in _finished(job)}
    pending = [number for number in range(job.n_shards) if number not in results]
    done, total = sum(result.n_users for result in results.values()), job.source.n_users

    def tick(n_users: int) -> None:
        nonlocal done
        done += n_users
        progress(Update("recommending", done, total, "users"))

    tick(0)
    for result in engine.run(recommender, job, pending, tick):
        results[result.number] = result
    return [results[number] for number in range(job.n_shards)]


def _finished(job: ShardJob) -> Iterator[ShardResult]:
    """The shards whose file is there and has the bytes that its tallies name."""
    sizes, tallies = job.folder.sizes(), job.folder.sizes(WORK)
    for number in range(job.n_shards):
        if Path(tally_name(number)).name not in tallies:
            continue
        try:
            result = ShardResult.of(job.folder.read_json(tally_name(number)))
        except (ArtifactError, KeyError, TypeError):
            continue
        if (
            sizes.get(result.name) == result.bytes
            and job.folder.sha256(result.name) == result.sha256
        ):
            yield result


def _complete(
    job: ShardJob,
    results: Sequence[ShardResult],
    recommender: Recommender,
    identity: ModelIdentity,
) -> None:
    """Writes the manifest: from now on the folder is whole."""
    unknown = Counter[Id]()
    for result in results:
        unknown.update(dict(result.unknown_items))
    totals = {
        name: sum(getattr(result, name) for result in results)
        for name in ("n_users", "n_rows", "n_popularity_users", "n_unknown")
    }
    files = {result.name: result.sha256 for result in results} | {
        REQUEST: job.folder.sha256(REQUEST)
    }
    written_by = {"coterie": coterie.__version__, "torch": torch.__version__}
    job.folder.write_json(
        MANIFEST,
        {
            "schema": SCHEMA,
            "files": files,
            "shards": [asdict(result) for result in results],
            "unknown_items": most_common(unknown.items(), len(unknown)),
            "unknown_allow": list(recommender.unknown_allow),
            "unknown_deny": list(recommender.unknown_deny),
            "written_by": written_by,
            **_named(identity),
            **totals,
        },
    )


def _summary(folder: Folder) -> FolderRecommendations:
    manifest = folder.read_json(MANIFEST)
    return FolderRecommendations(
        model=ModelIdentity(manifest["model_name"], manifest["model"], manifest["run_id"]),
        path=folder.path,
        n_shards=len(manifest["shards"]),
        unknown_items=dict(manifest["unknown_items"]),
        unknown_allow=tuple(manifest["unknown_allow"]),
        unknown_deny=tuple(manifest["unknown_deny"]),
        **{
            name: manifest[name]
            for name in ("n_users", "n_rows", "n_popularity_users", "n_unknown")
        },
    )
