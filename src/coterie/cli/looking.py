"""What is in a folder, in a model, in a configuration."""

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from coterie.cli.console import say, write_result
from coterie.cli.options import (
    MORE,
    Device,
    JsonFile,
    RunOrModel,
    Settings,
    laid_over,
    listed,
    read_ids,
    setting_of,
)
from coterie.cli.places import existing, result_file
from coterie.errors import ConfigError, NotFoundError
from coterie.plain_table import plain_table

verbs = typer.Typer()

_SHOWN = 10


@verbs.command()
def show(
    path: Annotated[
        Path,
        typer.Argument(
            help="Data set, run, model, recommendations, study, index, export, analysis, or a file."
        ),
    ],
    json_file: JsonFile = None,
) -> None:
    """Say what a folder or file is, with its counts, dates, configuration and state."""
    from coterie.show.show import show as show_contents  # noqa: PLC0415

    contents = show_contents(path)
    say(str(contents))
    write_result(json_file, contents.to_json())


@verbs.command()
def similar(
    run: RunOrModel,
    item: Annotated[str | None, typer.Option(metavar="ID", help="Id of the item.")] = None,
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Its title instead, or a part of it.")
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="How many items.")] = 10,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """List the items most like one item, by the cosine of their learned vectors."""
    from coterie.running.execution import Execution  # noqa: PLC0415
    from coterie.training.trained_model import TrainedModel  # noqa: PLC0415

    if (item is None) == (title is None):
        raise ConfigError("one of --item and --title must be given; --item ID is exact.")
    model = TrainedModel.load(run, Execution.of(device).resolved().device)
    item_id = _item_titled(model, title) if title is not None else _item_of(model, item)
    found = model.similar_items(item_id, k)
    rows = [
        [str(one.rank), str(one.item_id), one.title or "", f"{one.cosine:.4f}"] for one in found
    ]
    say(f"like {_named(model, item_id)}")
    say(plain_table(["rank", "item_id", "title", "cosine"], rows, [True, False, False, True]))
    listed = [one._asdict() for one in found]
    write_result(json_file, {"run": str(run), "item_id": item_id, "similar": listed})


@verbs.command()
def explain(
    run: RunOrModel,
    history: Annotated[
        list[str] | None,
        typer.Option(metavar="ID,…", help=f"Items of the history; {MORE}."),
    ] = None,
    history_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", callback=existing, help="The same from a file, one id a line."
        ),
    ] = None,
    item: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Id of the item to explain; repeat for more."),
    ] = None,
    title: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="Its title instead, or a part of it; repeat for more."),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Reasons an item.")] = 10,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Say why an item is recommended: what each item of the history adds to its score, by leaving
    it out.
    """
    from coterie.running.execution import Execution  # noqa: PLC0415
    from coterie.training.trained_model import TrainedModel  # noqa: PLC0415

    if not (item or title):
        raise ConfigError("--item or --title must be given; --item ID is exact.")
    if history is None and history_file is None:
        raise ConfigError("--history or --history-file must be given, as in --history 7,19.")
    had = [*listed(history), *(read_ids(history_file) or [])]
    model = TrainedModel.load(run, Execution.of(device).resolved().device)
    asked = [_item_of(model, one) for one in item or ()]
    asked += [_item_titled(model, one) for one in title or ()]
    found = model.explain(had, asked, k)
    say(str(found))
    write_result(json_file, {"run": str(run), **found.to_json()})


def _item_of(model: Any, text: str | None) -> Any:
    place = int(model.items.index_of([text])[0])
    if place < 0:
        raise NotFoundError(
            f"--item must be one of the model's {model.n_items:,} items, found {text!r}; check the"
            " id, or look for a title with --title."
        )
    return model.items.ids_of([place])[0]


def _item_titled(model: Any, text: str) -> Any:
    """The item whose title is, or alone contains, ``text``; capitals make no difference."""
    if model.titles is None:
        raise ConfigError("--title needs a model with titles, this one has none; use --item.")
    wanted = text.casefold()
    titles = [(title or "").casefold() for title in model.titles]
    places = [i for i, title in enumerate(titles) if title == wanted] or [
        i for i, title in enumerate(titles) if wanted in title
    ]
    if not places:
        raise NotFoundError(f"no title contains {text!r}; try a shorter part of it, or --item.")
    ids = model.items.ids_of(places)
    if len(places) > 1:
        shown = "; ".join(_named(model, one) for one in ids[:_SHOWN])
        raise ConfigError(
            f"--title must fit one item, {text!r} fits {len(ids)}: {shown}"
            f"{'; …' if len(ids) > _SHOWN else ''}. Use more of the title, or --item ID."
        )
    return ids[0]


def _named(model: Any, item_id: Any) -> str:
    place = int(model.items.index_of([item_id])[0])
    title = model.titles[place] if model.titles else None
    return f"{item_id} {title}" if title else str(item_id)


@verbs.command()
def config(
    model: Annotated[
        str | None, typer.Argument(help="Name of a model; without it, all are listed.")
    ] = None,
    setting: Settings = None,
    path: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", callback=result_file, help="Write it here instead."),
    ] = None,
) -> None:
    """Print a model's configuration with each field's default and meaning, as TOML for train
    --config.
    """
    from coterie.config import RunConfig, as_toml  # noqa: PLC0415
    from coterie.files import publish_file  # noqa: PLC0415

    if model is None:
        say(plain_table(["model", "what it is"], _models()))
        return
    values = laid_over(None, {"model.name": model} | dict(map(setting_of, setting or [])))
    text = as_toml(RunConfig.of(values), comments=True)
    if path is None:
        say(text.rstrip("\n"))
    else:
        with publish_file(path) as aside:
            aside.write_text(text, encoding="utf-8")


def _models() -> list[list[str]]:
    from coterie.config import RunConfig  # noqa: PLC0415

    kinds = get_args(RunConfig.model_fields["model"].annotation)
    return [[kind.model_fields["name"].default, _first_sentence(kind)] for kind in kinds]


def _first_sentence(kind: type) -> str:
    return " ".join((kind.__doc__ or "").partition("\n\n")[0].split())
