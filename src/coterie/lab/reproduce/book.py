"""A table of the results book, from raw files to its files."""

from collections.abc import Sequence
from pathlib import Path

from coterie.files import publish_file, write_json
from coterie.lab.reproduce.definition import read_definition
from coterie.lab.reproduce.pages import check_page, markdown, replace_section
from coterie.lab.reproduce.plot import check_plot, curves_to_draw, draw_curves
from coterie.lab.reproduce.results import Results
from coterie.lab.reproduce.runner import Plan, Runner
from coterie.running.execution import Execution
from coterie.running.progress import Progress, silent


def reproduce(
    table: str,
    out: str | Path,
    data: str | Path | None = None,
    *,
    seeds: Sequence[int] | None = None,
    held_out_users: int | None = None,
    epochs: int | None = None,
    rows: Sequence[str] | None = None,
    device: Execution | str = "auto",
    page: str | Path | None = None,
    progress: Progress = silent,
) -> Results:
    """Runs a published protocol from raw files to a table: what is finished in ``out`` is not done
    again.

    Writes ``TABLE.md`` and ``TABLE.json`` into ``out``, and ``TABLE.png`` for a table with curves.
    Tables of the same data may share ``out``: rows of the same name and configuration are trained
    once.

    Args:
        table: One of `table_names`.
        out: Folder for data sets, runs, reports and the table.
        data: Folder of the raw files; needed until every data set is prepared.
        seeds: In place of the table's own.
        held_out_users: In place of the protocol's number: a smaller table.
        epochs: At most, in place of the configurations' number: a smaller table.
        rows: Some of the rows only.
        device: As for `train`.
        page: A page whose section between the table's marks is replaced.
        progress: As for `train`, of the run under way.

    Raises:
        ConfigError: if an option cannot be honoured, or something in ``out`` was made otherwise.
        SourceError: if the raw files are missing or damaged.
        Interrupted: after SIGINT or SIGTERM; the same call goes on.
    """
    definition, out = read_definition(table), Path(out)
    if page is not None:
        check_page(Path(page), table)
    if definition.curves:
        check_plot()
    plan = Plan(
        table,
        definition,
        tuple(definition.seeds if seeds is None else seeds),
        definition.choose(rows),
        held_out_users,
        epochs,
    )
    results = Results(
        Runner(
            plan, out, None if data is None else Path(data), Execution.of(device), progress
        ).run()
    )
    section = markdown(results)
    with publish_file(out / f"{table}.md") as aside:
        aside.write_text(section, encoding="utf-8")
    write_json(out / f"{table}.json", results.to_json())
    folders = [out] if page is None else [out, Path(page).parent]
    for folder in folders if curves_to_draw(results) else []:
        draw_curves(results, folder / f"{table}.png")
    if page is not None:
        replace_section(Path(page), table, section)
    return results
