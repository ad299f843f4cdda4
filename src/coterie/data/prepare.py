"""From a log to a data set: threshold, merge, filter, index, split. The rules are those of Liang et
al.

The order is theirs, and matters: ratings below the threshold go; repeated pairs merge; items of too
few users go, then users of too few items, in one pass (an item may fall below its minimum again as
users go); held-out users are drawn; items no training user has go; a share of the held-out users'
items is hidden. A split by time filters by what is before its cut alone (`by_time.py`).

DuckDB turns ids into codes; what follows is NumPy on arrays, one entry an interaction.

References:
    D. Liang et al. (2018), Variational Autoencoders for Collaborative Filtering, section 4.1.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from coterie.data.by_time import divide_by_time, last_days
from coterie.data.dataset import Dataset, Interactions, count_parts
from coterie.data.ids import IdMap
from coterie.data.log import InteractionLog
from coterie.data.pairs import (
    Divided,
    Pairs,
    drop_low,
    drop_rare,
    drop_taken_back,
    is_negative,
    merge_repeated,
)
from coterie.data.read import LogSource, read_log
from coterie.data.rules import (
    GivenSplit,
    LeaveLastOut,
    PrepareRules,
    RuleFields,
    StrongGeneralisation,
    TimeSplit,
)
from coterie.data.split import (
    Part,
    Split,
    choose_users,
    hide_items,
    hide_validation_items,
    leave_last,
)
from coterie.data.table_options import TableFields, not_used
from coterie.errors import ConfigError, DataError
from coterie.running.progress import Progress, Update, silent

logger = logging.getLogger(__name__)

_DEFAULT = PrepareRules()


class PrepareFields(RuleFields, TableFields, total=False):
    """Fields of `PrepareRules` and of `TableOptions`."""


def prepare(
    source: InteractionLog | LogSource,
    rules: PrepareRules = _DEFAULT,
    progress: Progress = silent,
    *,
    user: str | int | None = None,
    item: str | int | None = None,
    rating: str | int | None = None,
    timestamp: str | int | None = None,
    titles: str | Path | Mapping[str, str] | None = None,
    **fields: Unpack[PrepareFields],
) -> Dataset:
    """Makes the data set: the same log, rules and seed give the same bytes.

    Users and items are sorted by id, integers by value and text by its UTF-8 bytes. Where the log
    brings its split, every kept user trains; a pair in both files is a training pair; users without
    a training interaction and items unseen in training go, counted. One open log may be prepared
    again and again, as a backtest does with one `TimeSplit.test_from` after another.

    Args:
        source: A path, several paths, or a table in memory, as `coterie.data.read.read_log` takes
            them; or what that returned, which is not changed.
        rules: What to keep and whom to hold out.
        progress: Called when a stage begins.
        user: Of a table: column of user ids, by its name or a frame's number; ``user_id`` if None.
        item: Of a table: column of item ids; ``item_id`` if None.
        rating: Of a table: column of ratings or counts.
        timestamp: Of a table: column of times.
        titles: By item id as text, or a file of them.
        fields: Single fields of `PrepareRules`, laid over ``rules``, and of `TableOptions`.

    Returns:
        The data set, with sources, rules and the count of everything dropped in its provenance.

    Raises:
        NotFoundError: if a file or folder is missing.
        SourceError: at the file and line that break the format, or if there is no row.
        ConfigError: if a rule does not fit the log (a least rating where there are no ratings, a
            split by time where there are no times, more held-out users than users), or columns are
            named of a log that is read.
        DataError: if nothing is left.

    Example:
        >>> pairs = [(user, item, 5) for item in range(8) for user in range(20)]
        >>> data = prepare(pairs, min_rating=4, split=StrongGeneralisation(2))
        >>> data.train.shape, data.provenance["counts"]["test_cases"]
        ((16, 8), 2)
    """
    of_rules: Any = {name: value for name, value in fields.items() if name in _RULE_NAMES}
    rules = replace(rules, **of_rules)
    table: Any = {name: value for name, value in fields.items() if name not in _RULE_NAMES}
    named = {"user_column": user, "item_column": item, "rating_column": rating}
    named["timestamp_column"] = timestamp
    table |= {name: column for name, column in named.items() if column is not None}
    if not isinstance(source, InteractionLog):
        table.setdefault(
            "negative_ratings", rules.min_rating is not None or bool(rules.negative_values)
        )
        progress(Update("reading the log"))
        with read_log(source, titles=titles, **table) as log:
            if words := not_used(log.reading):
                logger.warning("%s: %s", log.name, words)
            return _prepare(log, rules, progress)
    if table or titles is not None:
        raise ConfigError(
            f"columns and titles go with a source, found {', '.join(table) or 'titles'} beside a"
            " log that is read; name them where it is read."
        )
    return _prepare(source, rules, progress)


_RULE_NAMES = frozenset(RuleFields.__annotations__)


def _prepare(log: InteractionLog, rules: PrepareRules, progress: Progress) -> Dataset:
    rules = _resolved(log, rules)
    progress(Update("indexing ids"))
    users, items, rows, counts = _read_rows(log, rules)
    progress(Update("merging and filtering"))
    rows = rows.ordered()
    ceiling: dict[str, Any] = {}
    if isinstance(rules.split, TimeSplit):
        progress(Update("splitting"))
        divided, ceiling = divide_by_time(rows, rules, rules.split, counts)
    else:
        pairs = _filter(rows, rules, counts)
        progress(Update("splitting"))
        rules = _with_held_out_users(rules, len(np.unique(pairs.user)))
        divided = _divide(pairs, rules, counts)
    _check_left(divided.pairs, counts)
    interactions, split = _indexed(users, items, divided)
    titles = _titles(interactions.items, log.titles)
    if titles is not None:
        counts["items_without_title"] = titles.count(None)
    counts |= count_parts(interactions, split)
    provenance = _provenance(log, rules, interactions, counts)
    return Dataset(
        interactions, split, titles, provenance | ({"ceiling": ceiling} if ceiling else {})
    )


def _resolved(log: InteractionLog, rules: PrepareRules) -> PrepareRules:
    """With all that the log decides; refuses rules that need what it has not."""
    rules = rules.resolve(given_split=log.has("part"))
    _check_values(log, rules)
    split = rules.split
    if isinstance(split, LeaveLastOut | TimeSplit) and not log.has("timestamp"):
        raise ConfigError(
            f"split {split.name} needs a log with times, found none; name the column, or choose"
            " another split."
        )
    if isinstance(split, TimeSplit) and split.test_from is None:
        last = log.one("SELECT max(timestamp) FROM log")[0]
        return replace(rules, split=replace(split, test_from=last_days(last, split.test_days)))
    return rules


_N_BROKEN = "SELECT count(*) FROM log WHERE rating <> floor(rating)"


def _check_values(log: InteractionLog, rules: PrepareRules) -> None:
    asked = {"min_rating": None, "merge": "any", "negative_values": ()}
    for name, nothing in asked.items() if not log.has("rating") else ():
        if getattr(rules, name) != nothing:
            raise ConfigError(
                f"{name} needs a log with ratings or counts, found none for"
                f" {getattr(rules, name)}; leave it out or name the column."
            )
    if rules.merge == "sum" and (n_broken := log.one(_N_BROKEN)[0]):
        raise ConfigError(
            f"merge sum needs whole counts, found {n_broken} rows with fractions; merge any or"
            " latest."
        )


def _with_held_out_users(rules: PrepareRules, n_users: int) -> PrepareRules:
    split = rules.split
    if not isinstance(split, StrongGeneralisation) or split.held_out_users is not None:
        return rules
    return replace(rules, split=replace(split, held_out_users=max(1, n_users // 10)))


def _filter(rows: Pairs, rules: PrepareRules, counts: dict[str, int]) -> Pairs:
    """Merges and drops, adding to ``counts``; what remains is sorted by user and item."""
    pairs = drop_low(_merge(rows, rules, counts), rules.min_rating)
    if rules.merge != "any":
        counts["interactions_below_min_rating"] = (
            len(rows) - len(pairs) - sum(counts.get(name, 0) for name in _MERGED)
        )
    kept, dropped = drop_rare(pairs, rules.min_item_users, rules.min_user_items or 0)
    counts |= dropped
    if isinstance(rules.split, GivenSplit):
        kept = _drop_untrained_users(kept, counts)
    _check_left(kept, counts)
    return kept


_MERGED = ("rows_of_negative_values", "rows_taken_back", "repeated_rows")


def _merge(rows: Pairs, rules: PrepareRules, counts: dict[str, int]) -> Pairs:
    left = drop_taken_back(rows, rules.negative_values)
    if rules.negative_values:
        n_negative = int(is_negative(rows, rules.negative_values).sum())
        counts["rows_of_negative_values"] = n_negative
        counts["rows_taken_back"] = len(rows) - len(left) - n_negative
    once = merge_repeated(left, rules.merge)
    counts["repeated_rows"] = len(left) - len(once)
    return once


def _divide(pairs: Pairs, rules: PrepareRules, counts: dict[str, int]) -> Divided:
    """Draws who is held out, drops what training does not know, and hides items."""
    users, split = np.unique(pairs.user), rules.split
    user_part = np.full(len(users), Part.TRAIN, dtype=np.uint8)
    if isinstance(split, StrongGeneralisation):
        user_part = choose_users(len(users), split.held_out_users or 0, split.seed)
    if isinstance(split, LeaveLastOut):
        last = leave_last(pairs.user, pairs.timestamp, pairs.row, split.last_n)  # type: ignore[arg-type]
        pairs = replace(pairs, part=last)
    pairs = _drop_unseen_items(pairs, users[user_part == Part.TRAIN], counts)
    indptr = _indptr(pairs.user, users)
    if isinstance(split, StrongGeneralisation):
        hidden = hide_items(indptr, user_part, split.seed, split.held_out_share)
        pairs = replace(pairs, part=hidden)
    if isinstance(split, GivenSplit):
        pairs = replace(pairs, part=_validation_items(pairs, indptr, split))
    return Divided(pairs, users, user_part)


def _indptr(user: np.ndarray, users: np.ndarray) -> np.ndarray:
    """``[len(users) + 1]`` where the rows of each of ``users`` start, in ascending ``user``."""
    starts: np.ndarray = np.append(np.searchsorted(user, users), len(user)).astype(np.int64)
    return starts


def _indexed(users: IdMap, items: IdMap, divided: Divided) -> tuple[Interactions, Split]:
    """Codes become rows and columns; what None can say is None."""
    pairs, first = divided.pairs, divided.pairs.first_timestamp
    items, item = _compact(items, pairs.item)
    is_once = pairs.count is None or (pairs.count == 1).all()
    is_first = first is None or np.array_equal(first, pairs.timestamp)  # type: ignore[arg-type]
    interactions = Interactions(
        IdMap(users.take(divided.users)),
        items,
        _indptr(pairs.user, divided.users),
        item,
        pairs.timestamp,
        None if is_once else pairs.count,
        None if is_first else first,
    )
    return interactions, Split(divided.user_part, pairs.part, pairs.repeats)  # type: ignore[arg-type]


def _read_rows(
    log: InteractionLog, rules: PrepareRules
) -> tuple[IdMap, IdMap, Pairs, dict[str, int]]:
    """Ids in order, every row that counts as codes, and the counts so far."""
    condition = _condition(log, rules)
    users, items = (_vocabulary(log, column, condition) for column in ("user_id", "item_id"))
    fields = ["user_codes.code AS user", "item_codes.code AS item", *_columns(log, rules)]
    rows = log.connection.execute(
        f"SELECT {', '.join(fields)} FROM log JOIN user_codes ON user_id = user_codes.id JOIN"
        f" item_codes ON item_id = item_codes.id WHERE {condition}"
    ).fetchnumpy()
    zeros = 0
    if rules.min_rating is None and 0 not in rules.negative_values:
        zeros = int(log.one("SELECT count(*) FROM log WHERE rating = 0")[0])
    counts = {
        **log.counts,
        "rows_read": log.counts.get("rows_read", log.n_rows),
        "rows_below_min_rating": log.n_rows - len(rows["user"]) - zeros,
    }
    return users, items, Pairs(**rows), counts | ({"rows_of_value_zero": zeros} if zeros else {})


def _condition(log: InteractionLog, rules: PrepareRules) -> str:
    """Which rows count, in SQL: those held against the least rating one by one, and those of no
    rating of zero if none is stated; "unlikes" in any case.
    """
    if not log.has("rating"):
        return "true"
    kept = "true"
    if rules.min_rating is None:
        kept = "rating IS DISTINCT FROM 0"
    elif rules.merge == "any":
        kept = f"rating >= {rules.min_rating!r}"
    unlikes = [f"rating = {value!r}" for value in rules.negative_values]
    return " OR ".join([kept, *unlikes])


def _columns(log: InteractionLog, rules: PrepareRules) -> list[str]:
    """What else merging and splitting read of a row."""
    by_value = rules.merge != "any" or bool(rules.negative_values)
    are_counts = log.ratings_are_counts or rules.merge == "sum"
    in_order = rules.merge == "latest" or rules.negative_values
    wanted = {
        "timestamp": log.has("timestamp"),
        "part": log.has("part"),
        "CAST(rating AS BIGINT) AS count": are_counts,
        "rating AS value": by_value,
        "log.rowid AS row": in_order or isinstance(rules.split, LeaveLastOut),
    }
    return [column for column, is_wanted in wanted.items() if is_wanted]


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


def _drop_unseen_items(pairs: Pairs, trained: np.ndarray, counts: dict[str, int]) -> Pairs:
    """No model can know an item that no training interaction has; ``trained`` are the users who
    train.
    """
    trains = np.isin(pairs.user, trained)
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


def _validation_items(pairs: Pairs, indptr: np.ndarray, split: GivenSplit) -> np.ndarray:
    parts = hide_validation_items(indptr, pairs.part, split.seed, split.validation_share)  # type: ignore[arg-type]
    # Validation must not take an item's last training interaction: every item is one a model can
    # know.
    n_training = np.bincount(pairs.item[parts == Part.TRAIN], minlength=int(pairs.item.max()) + 1)
    parts[(parts == Part.VALIDATION) & (n_training == 0)[pairs.item]] = Part.TRAIN
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


def _provenance(
    log: InteractionLog, rules: PrepareRules, interactions: Interactions, counts: dict[str, int]
) -> dict[str, Any]:
    return {
        "name": log.name,
        "format": log.format,
        "sources": log.sources,
        "reading": {
            "user_id": _type_of(interactions.users),
            "item_id": _type_of(interactions.items),
            **log.reading,
        },
        "rules": rules.stated(),
        "counts": counts,
    }


def _type_of(ids: IdMap) -> str:
    return "integer" if ids.are_integers else "text"
