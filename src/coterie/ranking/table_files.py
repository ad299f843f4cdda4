"""Tables written to Parquet, CSV or JSON lines, a block at a time, so that no file need fit in
memory.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from coterie.data.source import is_url
from coterie.errors import ConfigError
from coterie.files import publish_file

_ENDINGS = (".parquet", ".csv", ".jsonl", ".ndjson", ".csv.gz", ".jsonl.gz", ".ndjson.gz")


def is_table(path: str | Path) -> bool:
    """Whether the name's ending is one of a file that can be written; any other is meant for a
    folder.
    """
    return str(path).endswith(_ENDINGS)


@contextmanager
def table_writer(path: str | Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Yields a function that appends a table of ``schema``; the file appears whole at the end, or
    not at all.

    Raises:
        ConfigError: if the file's ending names no format that can be written, or it is a URL.
    """
    if is_url(str(path)):
        raise ConfigError(
            f"a single file is written to a local path, found {path}; write a folder there, or copy"
            " the file."
        )
    path = Path(path)
    ending = next((ending for ending in _ENDINGS if path.name.endswith(ending)), None)
    if ending is None:
        raise ConfigError(
            f"the file must end in one of {', '.join(_ENDINGS)}, found {path.name!r}; choose"
            " another name."
        )
    with publish_file(path) as aside:
        if ending == ".parquet":
            with pq.ParquetWriter(aside, schema) as parquet:
                yield parquet.write_table
            return
        with pa.output_stream(
            aside, compression="gzip" if ending.endswith(".gz") else None
        ) as stream:
            if ending.startswith(".csv"):
                with pa.csv.CSVWriter(stream, schema) as lines:
                    yield lines.write_table
            else:
                with duckdb.connect() as database:
                    yield lambda table: _write_json_lines(database, stream, table)


def _write_json_lines(
    database: duckdb.DuckDBPyConnection, stream: pa.NativeFile, table: pa.Table
) -> None:
    database.register("block", table)
    lines = database.sql(
        "SELECT to_json(block)::VARCHAR || chr(10) AS line FROM block"
    ).to_arrow_table()["line"]
    stream.write("".join(lines.to_pylist()).encode())
