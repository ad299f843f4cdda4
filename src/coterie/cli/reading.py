"""Options of reading a log and of what is kept of it: what `prepare` and `backtest`, and in
parts `recommend` and `demo` share.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from coterie.cli.options import MORE, IdTypes, TimeUnits, listed, numbers, value_of
from coterie.errors import ConfigError

if TYPE_CHECKING:
    from coterie.data.log import InteractionLog
    from coterie.data.rules import PrepareRules, SplitByLog, SplitRules
    from coterie.data.table_options import TextFields

LogPaths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH…",
        help=(
            "Log: a file or a folder; for tables also several, fsspec URLs (s3://…), or a"
            " database (sqlite:///, postgresql://) with --query."
        ),
    ),
]
LogFormatName = Annotated[
    str,
    typer.Option(
        help=(
            "movielens, netflix, taste-profile, adjacency, table; auto chooses by the names of"
            " the files."
        )
    ),
]
UserColumn = Annotated[
    str | None, typer.Option(help="Table: column of user ids (default user_id).")
]
ItemColumn = Annotated[
    str | None, typer.Option(help="Table: column of item ids (default item_id).")
]
RatingColumn = Annotated[
    str | None,
    typer.Option(help="Table: column of ratings, or of counts, which --merge sum alone keeps."),
]
TimestampColumn = Annotated[
    str | None, typer.Option(help="Table: column of times (seconds since 1970, or ISO).")
]
AllColumns = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME,…", help=f"Table without a header: all its columns in order; {MORE}."
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(help=r"Table: one or two characters between fields, \t a tab; else found."),
]
Quote = Annotated[
    str,
    typer.Option(
        metavar="SIGN",
        help="Table, titles: around fields that hold a delimiter; none: quotes are plain signs.",
    ),
]
Encoding = Annotated[str, typer.Option(help="Table: of its text, as in cp1252.")]
NullWord = Annotated[
    list[str] | None,
    typer.Option(help="Table: a text that means a missing id, in place of the usual ones."),
]
RatingValue = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WORD=NUMBER,…",
        help=f"Table: what words in the rating column mean, as in view=1,buy=3; {MORE}.",
    ),
]
TimestampUnit = Annotated[
    TimeUnits, typer.Option(help="Table: of times that are numbers; auto goes by their size.")
]
UserIdType = Annotated[
    IdTypes, typer.Option(help="Table: auto takes integers if all ids are whole numbers.")
]
ItemIdType = Annotated[IdTypes, typer.Option(help="Table: likewise.")]
Glob = Annotated[
    bool, typer.Option("--glob", help="Table: stars and brackets in PATH are a pattern.")
]
Partitions = Annotated[
    bool, typer.Option("--partitions", help="Table: key=value in a path is a column (hive).")
]
Query = Annotated[
    str | None, typer.Option(help="SQL that gives the rows, where PATH is a database.")
]
TestLog = Annotated[
    str | None,
    typer.Option(
        "--test", metavar="PATH", help="Table: another, whose rows are for the test: a given split."
    ),
]
Titles = Annotated[
    str | None,
    typer.Option(
        help="File of titles: movies.csv, movies.dat, u.item, …, or a table item_id,title."
    ),
]
TitlesColumns = Annotated[
    str | None,
    typer.Option(metavar="ID,TITLE", help="Columns of a table of titles, if named otherwise."),
]
MinRating = Annotated[
    float | None,
    typer.Option(help="Keep ratings (or counts) of at least this; MovieLens and Netflix: 4."),
]
MinUserItems = Annotated[
    int | None,
    typer.Option(min=0, help="Drop users with fewer items (default 5; 0 for a given split)."),
]
MinItemUsers = Annotated[
    int, typer.Option(min=0, help="First drop items with fewer users (Taste Profile: 200).")
]
MergeRule = Annotated[
    str | None,
    typer.Option(
        help=(
            "Repeated rows of a user and item: any (default; one that reaches --min-rating is"
            " enough), latest (default with --negative-value), sum (of counts)."
        )
    ),
]
NegativeValue = Annotated[
    list[str] | None,
    typer.Option(
        metavar="V,…",
        help=f"A rating that says unlike, and takes back what came before; {MORE}.",
    ),
]
MemoryLimit = Annotated[str, typer.Option(help="DuckDB's; more spills to disk.")]


def read(given: Mapping[str, Any]) -> "InteractionLog":
    """Reads the log that a verb's options name.

    Args:
        given: The verb's options by name, those above among them.
    """
    from coterie.data.read import read_log  # noqa: PLC0415
    from coterie.data.table_options import NULL_WORDS, TableFields  # noqa: PLC0415

    same = ("user_column", "item_column", "rating_column", "timestamp_column", "query")
    text = written(*(given[name] for name in ("columns", "delimiter", "quote", "encoding")))
    words = given["null_word"]
    table = {name: given[name] for name in same} | {
        **text,
        "test": given.get("test"),
        "null_words": NULL_WORDS if words is None else tuple(words),
        "rating_values": dict(map(value_of, listed(given["rating_value"]))),
        "negative_ratings": given["min_rating"] is not None or bool(given["negative_value"]),
        "timestamp_unit": given["timestamp_unit"].value,
        "user_id_type": given["user_id_type"].value,
        "item_id_type": given["item_id_type"].value,
        "pattern": given["glob"],
        "partitions": given["partitions"],
    }
    return read_log(
        given["paths"],
        given["format"],
        titles=titles_of(given["titles"], given["titles_columns"], text.get("quote", '"')),
        memory_limit=given["memory_limit"],
        **cast(TableFields, table),
    )


def written(
    columns: list[str] | None, delimiter: str | None, quote: str, encoding: str | None
) -> "TextFields":
    r"""How delimited text is written, as far as that is said.

    Example:
        >>> written(None, r"\t", "none", "utf-8")
        {'delimiter': '\t', 'quote': ''}
    """
    fields: TextFields = {}
    if columns:
        fields["columns"] = listed(columns)
    if delimiter is not None:
        fields["delimiter"] = delimiter.replace(r"\t", "\t")
    if quote != '"':
        fields["quote"] = "" if quote == "none" else quote
    if encoding not in (None, "utf-8"):
        fields["encoding"] = encoding
    return fields


def titles_of(
    path: str | Path | None, columns: str | None, quote: str
) -> str | Path | dict[str, str] | None:
    """Where they are or, of a table whose columns are named, the titles."""
    from coterie.data.titles import read_titles  # noqa: PLC0415

    if columns is None:
        return path
    names = listed([columns])
    if path is None or len(names) != 2:
        raise ConfigError(
            f"--titles-columns must be ID,TITLE beside --titles, found {columns!r}; give both."
        )
    return read_titles(path, names[0], names[1], quote)


def rules(given: Mapping[str, Any], split: "SplitRules | SplitByLog") -> "PrepareRules":
    """What is kept, by a verb's options, beside a split."""
    from coterie.data.rules import PrepareRules  # noqa: PLC0415

    same = ("min_rating", "min_user_items", "min_item_users", "merge")
    return PrepareRules(
        **{name: given[name] for name in same},
        split=split,
        negative_values=numbers(given["negative_value"]),
    )
