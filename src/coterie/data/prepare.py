"""From a log to a data set: threshold, merge, filter, index, split. The rules are those of Liang et
al.

The order is theirs, and matters: ratings below the threshold go; repeated pairs merge; items of too
few users go, then users of too few items, in one pass (an item may fall below its minimum again as
users go); held-out users are drawn; items no training user has go; a share of the held-out users'
items is hidden.

DuckDB turns ids into codes; what follows is NumPy on arrays, one entry an interaction.

References:
    D. Liang et al. (2018), Variational Autoencoders for Collaborative Filtering, section 4.1.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from coterie.data.dataset import Dataset, Interactions, count_parts
from coterie.data.ids import IdMap
from coterie.data.log import InteractionLog
from coterie.data.rules import PrepareRules
from coterie.data.split import Part, Split, choose_users, hide_items, hide_validation_items
from coterie.errors import ConfigError, DataError
from coterie.running.progress import Progress, Update, silent


@dataclass(frozen=True)
class Pairs:
    """Interactions as arrays of equal length, in any order.

    Args:
        user: ``[n]`` int32 codes, ascending with the ids.
        item: ``[n]`` int32 codes, ascending with the ids.
        timestamp: ``[n]`` int64 seconds, or None.
        part: ``[n]`` uint8 given parts, or None.
        count: ``[n]`` integers, how often each was seen, or None: once.
    """

    user: np.ndarray
    item: np.ndarray
    timestamp: np.ndarray | None = None
    part: np.ndarray | None = None
    count: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.user)

    def where(self, keep: np.ndarray) -> "Pairs":
        """The interactions where ``keep`` ([n] bool) holds."""
        if keep.all():
            return self
        optional = (
            None if column is None else column[keep]
            for column in (self.timestamp, self.part, self.count)
        )
        return Pairs(self.user[keep], self.item[keep], *optional)


def merge_repeated(pairs: Pairs) -> Pairs:
    """Sorts by user and item, and makes every pair one: counted, with the latest time stamp, and
    training if any says so.

    Example:
        >>> twice = Pairs(np.array([1, 0, 1]), np.array([2, 5, 2]), np.array([10, 20, 30]))
        >>> once = merge_repeated(twice)
        >>> once.timestamp.tolist(), once.count.tolist()
        ([20, 30], [1, 2])
    """
    width = int(pairs.item.max(initial=0)) + 1
    key = pairs.user.astype(np.int64) * width + pairs.item
    order = np.argsort(key, kind="stable")
    key = key[order]
    starts = np.flatnonzero(np.concatenate([key[:1] == key[:1], key[1:] != key[:-1]]))
    timestamp = (
        None if pairs.timestamp is None else np.maximum.reduceat(pairs.timestamp[order], starts)
    )
    part = None if pairs.part is None else np.minimum.reduceat(pairs.part[order], starts)
    count = (
        np.diff(starts, append=len(key))
        if pairs.count is None
        else np.add.reduceat(pairs.count[order], starts)
    )
    user, item = np.divmod(key[starts], width)
    return Pairs(
        user.astype(np.int32),
        item.astype(np.int32),
        timestamp,
        part,
        None if (count == 1).all() else count,
    )


def drop_rare(
    pairs: Pairs, min_item_users: int, min_user_items: int
) -> tuple[Pairs, dict[str, int]]:
    """Drops items of too few users, then users of too few items, once; returns what is left and the
    counts.

    Dropping a user may bring an item below its minimum again; that item stays, as in Liang et al.
    """
    users_of = np.bincount(pairs.item)
    rare_items = (users_of > 0) & (users_of < min_item_users)
    left = pairs.where(~rare_items[pairs.item])
    items_of = np.bincount(left.user, minlength=int(pairs.user.max(initial=-1)) + 1)
    rare_users = (np.bincount(pairs.user) > 0) & (items_of < min_user_items)
    kept = left.where(~rare_users[left.user])
    counts = {
        "items_below_min_users": int(rare_items.sum()),
        "interactions_of_items_below_min_users": len(pairs) - len(left),
        "users_below_min_items": int(rare_users.sum()),
        "interactions_of_users_below_min_items": len(left) - len(kept),
    }
    return kept, counts


def prepare(log: InteractionLog, rules: PrepareRules, progress: Progress = silent) -> Dataset:
    """Makes the data set: the same log, rules and seed give the same bytes.

    Users and items are sorted by id, integers by value and text by its UTF-8 bytes. Where the log
    brings its split, every kept user trains; a pair in both files is a training pair; users without
    a training interaction and items unseen in training go, counted.

    Args:
        log: From `coterie.data.read.read_log`; not changed.
        rules: What to keep and whom to hold out.
        progress: Called when a stage begins.

    Returns:
        The data set, with sources, rules and the count of everything dropped in its provenance.

    Raises:
        ConfigError: if a rule does not fit the log (a least rating where there are no ratings, more
            held-out users than users).
        DataError: if nothing is left.

    Example:
        >>> rows = "SELECT r % 20, r // 20, 5, NULL, NULL FROM range(160) t(r)"
        >>> with InteractionLog("hand-made", "table") as log:
        ...     _ = log.connection.execute(f"INSERT INTO log {rows}")
        ...     data = prepare(log, PrepareRules(min_rating=4, held_out_users=2))
        >>> data.train.shape, data.provenance["counts"]["test_cases"]
        ((16, 8), 2)
    """
    rules = rules.resolve(given_split=log.has("part"))
    progress(Update("indexing ids"))
    users, items, pairs, counts = _read_pairs(log, rules.min_rating)
    progress(Update("merging and filtering"))
    pairs = _filter(pairs, rules, counts)
    users, user = _compact(users, pairs.user)
    progress(Update("splitting"))
    if pairs.part is None and rules.held_out_users is None:
        rules = replace(rules, held_out_users=max(1, len(users) // 10))
    interactions, split = _split(users, items, replace(pairs, user=user), rules, counts)
    titles = _titles(interactions.items, log.titles)
    if titles is not None:
        counts["items_without_title"] = titles.count(None)
    return Dataset(
        interactions,
        split,
        titles,
        _provenance(log, rules, counts | count_parts(interactions, split)),
    )


def _filter(pairs: Pairs, rules: PrepareRules, counts: dict[str, int]) -> Pairs:
    """Merges and drops, adding to ``counts``; what remains is sorted by user and item."""
    merged = merge_repeated(pairs)
    counts["repeated_rows"] = len(pairs) - len(merged)
    kept, dropped = drop_rare(merged, rules.min_item_users, rules.min_user_items or 0)
    counts |= dropped
    if kept.part is not None:
        kept = _drop_untrained_users(kept, counts)
    _check_left(kept, counts)
    return kept


def _split(
    users: IdMap, items: IdMap, pairs: Pairs, rules: PrepareRules, counts: dict[str, int]
) -> tuple[Interactions, Split]:
    """Draws who is held out (unless the split is given), drops what training does not know, and
    hides items.
    """
    if pairs.part is None:
        user_part = choose_users(len(users), rules.held_out_users or 0, rules.seed)
    else:
        user_part = np.full(len(users), Part.TRAIN, dtype=np.uint8)
    pairs = _drop_unseen_items(pairs, user_part, counts)
    _check_left(pairs, counts)
    items, item = _compact(items, pairs.item)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(pairs.user, minlength=len(users)))]).astype(
        np.int64
    )
    interactions = Interactions(users, items, indptr, item, pairs.timestamp, pairs.count)
    return interactions, Split(
        user_part, _interaction_part(interactions, user_part, pairs.part, rules)
    )


def _read_pairs(
    log: InteractionLog, min_rating: float | None
) -> tuple[IdMap, IdMap, Pairs, dict[str, int]]:
    """Ids in order, every row at or above the threshold as codes, and the counts so far."""
    if min_rating is not None and not log.has("rating"):
        raise ConfigError(
            f"min_rating needs a log with ratings or counts, found none for {min_rating}; leave it"
            " out or name the column."
        )
    condition = "true" if min_rating is None else f"rating >= {min_rating!r}"
    users, items = (_vocabulary(log, column, condition) for column in ("user_id", "item_id"))
    optional = [column for column in ("timestamp", "part") if log.has(column)]
    if log.ratings_are_counts:
        optional.append("CAST(rating AS BIGINT) AS count")
    fields = ", ".join(["user_codes.code AS user", "item_codes.code AS item", *optional])
    rows = log.connection.execute(
        f"SELECT {fields} FROM log JOIN user_codes ON user_id = user_codes.id JOIN item_codes ON"
        f" item_id = item_codes.id WHERE {condition}"
    ).fetchnumpy()
    pairs = Pairs(
        rows["user"], rows["item"], rows.get("timestamp"), rows.get("part"), rows.get("count")
    )
    n_read = log.counts.get("rows_read", log.n_rows)
    without_id = log.counts.get("rows_without_id", 0)
    return (
        users,
        items,
        pairs,
        log.counts
        | {
            "rows_read": n_read,
            "rows_below_min_rating": n_read - without_id - len(pairs),
        },
    )


def _vocabulary(log: InteractionLog, column: str, condition: str) -> IdMap:
    """The ids of a column in order, kept beside the log as ``user_codes`` or ``item_codes (id,
    code)``.
    """
    table = column.replace("_id", "_codes")
    log.connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT id, CAST(row_number() OVER (ORDER BY id) -"
        f" 1 AS INTEGER) AS code FROM (SELECT DISTINCT {column} AS id FROM log WHERE {condition})"
    )
    return IdMap.of(
        log.connection.sql(f"SELECT id FROM {table} ORDER BY code").to_arrow_table()["id"]
    )


def _compact(ids: IdMap, codes: np.ndarray) -> tuple[IdMap, np.ndarray]:
    """The ids that still occur, in order, and ``codes`` ([n]) renumbered to them as int32."""
    occurs = np.bincount(codes, minlength=len(ids)) > 0
    renumbered = (np.cumsum(occurs) - 1).astype(np.int32)
    return IdMap(ids.take(np.flatnonzero(occurs))), renumbered[codes]


def _drop_untrained_users(pairs: Pairs, counts: dict[str, int]) -> Pairs:
    """Of a given split: a user of the test file alone has nothing to be recommended from."""
    n_users = int(pairs.user.max(initial=-1)) + 1
    trains = np.bincount(pairs.user[pairs.part == Part.TRAIN], minlength=n_users) > 0
    kept = pairs.where(trains[pairs.user])
    counts["users_without_training"] = int(
        ((np.bincount(pairs.user, minlength=n_users) > 0) & ~trains).sum()
    )
    counts["interactions_of_users_without_training"] = len(pairs) - len(kept)
    return kept


def _drop_unseen_items(pairs: Pairs, user_part: np.ndarray, counts: dict[str, int]) -> Pairs:
    """No model can know an item that no training interaction has."""
    trains = user_part[pairs.user] == Part.TRAIN
    if pairs.part is not None:
        trains &= pairs.part == Part.TRAIN
    n_items = int(pairs.item.max()) + 1
    seen = np.bincount(pairs.item[trains], minlength=n_items) > 0
    kept = pairs.where(seen[pairs.item])
    counts["items_unseen_in_training"] = int(
        ((np.bincount(pairs.item, minlength=n_items) > 0) & ~seen).sum()
    )
    counts["interactions_of_items_unseen_in_training"] = len(pairs) - len(kept)
    return kept


def _interaction_part(
    x: Interactions, user_part: np.ndarray, given: np.ndarray | None, rules: PrepareRules
) -> np.ndarray:
    if given is None:
        return hide_items(x.indptr, user_part, rules.seed, rules.held_out_share or 0.0)
    parts = hide_validation_items(x.indptr, given, rules.seed, rules.validation_share or 0.0)
    # Validation must not take an item's last training interaction: every item is one a model can
    # know.
    unseen = np.bincount(x.indices[parts == Part.TRAIN], minlength=x.n_items) == 0
    parts[(parts == Part.VALIDATION) & unseen[x.indices]] = Part.TRAIN
    return parts


def _check_left(pairs: Pairs, counts: dict[str, int]) -> None:
    if not len(pairs):
        dropped = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
        raise DataError(
            f"at least one interaction must be left to train on, found none after: {dropped}; lower"
            " the thresholds."
        )


def _titles(items: IdMap, titles: Mapping[str, str] | None) -> tuple[str | None, ...] | None:
    if not titles:
        return None
    of_item: list[str | None] = [None] * len(items)
    for index, title in zip(items.index_of(list(titles)).tolist(), titles.values(), strict=True):
        if index >= 0:
            of_item[index] = title
    return tuple(of_item)


def _provenance(log: InteractionLog, rules: PrepareRules, counts: dict[str, int]) -> dict[str, Any]:
    idle = ("held_out_users", "held_out_share", "validation_share")
    stated = {
        name: value
        for name, value in asdict(rules).items()
        if value is not None or name not in idle
    }
    return {
        "name": log.name,
        "format": log.format,
        "sources": log.sources,
        "rules": stated,
        "counts": counts,
    }
