"""How good models are, and what is inside them."""

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from coterie.cli.console import drawn, say, say_written, write_result
from coterie.cli.options import (
    DEFAULT_METRICS,
    Data,
    Device,
    InSample,
    JsonFile,
    Metrics,
    Run,
    SplitPart,
    listed,
)
from coterie.cli.places import existing, result_file, result_folder
from coterie.errors import ConfigError, DataError
from coterie.files import check_replaceable
from coterie.running.progress import Update

verbs = typer.Typer()


@verbs.command()
def evaluate(
    run: Run,
    split: Annotated[
        SplitPart, typer.Option(help="Choose on validation; report test once.")
    ] = SplitPart.TEST,
    metric: Metrics = DEFAULT_METRICS,
    data: Data = None,
    per_user: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=result_file,
            help="Also write every user's values as Parquet.",
        ),
    ] = None,
    in_sample: InSample = False,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Measure a model on held-out users, overall and by their number of interactions."""
    from coterie.evaluation.metrics import metric_of  # noqa: PLC0415

    measured = _evaluate(run, split, listed(metric), data, device, in_sample=in_sample)
    report, of_new_users = measured.report, measured.of_new_users
    say(str(report))
    if beyond := [one for one in report.metrics if metric_of(one).k > measured.n_items]:
        say(f"k exceeds the {measured.n_items} items of the data set: {', '.join(beyond)}")
    if of_new_users is not None:
        say(f"\nusers with nothing known before, answered by popularity\n{of_new_users}")
    if per_user is not None:
        import pyarrow.parquet as pq  # noqa: PLC0415

        from coterie.files import publish_file  # noqa: PLC0415

        with publish_file(per_user) as aside:
            pq.write_table(report.per_user_table(), aside)
    apart = {} if of_new_users is None else {"new_users": of_new_users.to_json()}
    told = {"run": str(run), "split": split.value, "in_sample": measured.in_sample}
    write_result(json_file, {**told, **report.to_json(), **apart})


@verbs.command()
def compare(
    candidate: Annotated[
        str, typer.Argument(help="Run folder, or several (seeds) joined by commas.")
    ],
    reference: Annotated[
        str, typer.Argument(help="Run folder to hold it against, as many, in the same order.")
    ],
    split: Annotated[
        SplitPart, typer.Option(help="Choose on validation; report test once.")
    ] = SplitPart.TEST,
    metric: Metrics = DEFAULT_METRICS,
    data: Data = None,
    resamples: Annotated[
        int, typer.Option(min=100, help="Of the bootstrap and of the sign flips.")
    ] = 10_000,
    confidence: Annotated[float, typer.Option(help="Of the interval.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Of the resampling.")] = 0,
    in_sample: InSample = False,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Compare two models on the same users: paired intervals and p-values.

    Several runs a side are pooled, each user once with the average over their runs; intervals then
    hold splits and seeds as well as users.
    """
    from coterie.evaluation.compare import compare_runs  # noqa: PLC0415

    sides = [[Path(run) for run in listed([side])] for side in (candidate, reference)]
    for run in [*sides[0], *sides[1]]:
        existing(run)
    metrics = listed(metric)
    measured = [
        [_evaluate(run, split, metrics, data, device, in_sample=in_sample) for run in side]
        for side in sides
    ]
    reports = [[one.report for one in side] for side in measured]
    if not all(len(one) for side in reports for one in side):
        raise DataError(
            "a comparison needs users of whom something is known, found none; hold out more users"
            " or items."
        )
    comparison = compare_runs(*reports, seed=seed, n_resamples=resamples, confidence=confidence)
    say(str(comparison))
    write_result(
        json_file,
        {
            "candidate": candidate,
            "reference": reference,
            "split": split.value,
            "in_sample": any(one.in_sample for side in measured for one in side),
            **comparison.to_json(),
        },
    )


@verbs.command()
def analyze(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN…|SERVICE",
            help=(
                "Run folders of one data set, or NAME=RUN to call them otherwise; or a service's"
                " folder, whose live model is looked into."
            ),
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            callback=result_folder,
            help=(
                "Of runs: report.html, a PNG a figure, numbers.json, users.parquet, pairs.parquet"
                " and the dashboard's map."
            ),
        ),
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Of a service: this version in place of the live one.")
    ] = None,
    weeks: Annotated[
        int | None,
        typer.Option(min=1, help="Of a service: the last so many live ones that have no analysis."),
    ] = None,
    data: Data = None,
    users: Annotated[
        int, typer.Option(min=2, help="Training users whose transfer is measured, all with all.")
    ] = 1000,
    draws: Annotated[
        int, typer.Option(min=2, help="Latent points, and masks, of each of them.")
    ] = 4,
    map_users: Annotated[
        int, typer.Option(min=10, help="Training users in the maps and neighbourhoods.")
    ] = 2000,
    neighbours: Annotated[int, typer.Option(min=1, help="Size of a neighbourhood.")] = 50,
    near: Annotated[
        float, typer.Option(help="Local pairs: this share of all, the closest by Jaccard distance.")
    ] = 0.05,
    far: Annotated[float, typer.Option(help="Far pairs: all but this share of the closest.")] = 0.5,
    subset: Annotated[
        float,
        typer.Option(
            help=(
                "Far pairs are related if the heavier user has this share of the lighter one's"
                " items …"
            )
        ),
    ] = 0.5,
    linked: Annotated[
        int, typer.Option(min=1, help="… or if so many of their nearest users are common to both.")
    ] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of users, draws and masks.")] = 0,
    device: Device = "auto",
    json_file: JsonFile = None,
) -> None:
    """Look into models: how users help each other, drift, collapse, maps, and what to do about it,
    as one page. Of a service the pages Latent map and Collaboration of the dashboard show it.
    """
    if len(runs) == 1 and (Path(runs[0]) / "coterie.toml").is_file():
        _check_no_folder(folder)
        _analyze_service(Path(runs[0]), version, weeks, json_file)
        return
    if folder is None or version is not None or weeks is not None:
        raise ConfigError(
            "an analysis of runs must say where it goes by --out, and has no --version and no"
            " --weeks; those are a service's."
        )
    from coterie.lab.collaboration.analysis import AnalysisOptions  # noqa: PLC0415
    from coterie.lab.collaboration.analyze import analyze as analyze_settings  # noqa: PLC0415
    from coterie.lab.collaboration.figures import check_figures  # noqa: PLC0415
    from coterie.lab.collaboration.pairs import PairRules  # noqa: PLC0415
    from coterie.lab.collaboration.report import PAGE, numbers, summary, write_report  # noqa: PLC0415
    from coterie.lab.collaboration.settings import load_settings  # noqa: PLC0415

    check_figures()
    check_replaceable(folder, PAGE)
    rules = PairRules(near=near, far=far, subset=subset, linked=linked)
    options = AnalysisOptions(
        users=users, draws=draws, map_users=map_users, neighbours=neighbours, rules=rules, seed=seed
    )
    settings, dataset = load_settings(runs, data, device)
    with drawn() as progress:
        analysis = analyze_settings(settings, dataset, options, progress=progress)
        progress(Update("writing the report"))
        write_report(analysis, folder)
    say(summary(analysis))
    say_written("report", folder / PAGE)
    write_result(json_file, numbers(analysis))


def _check_no_folder(folder: Path | None) -> None:
    if folder is not None:
        raise ConfigError(
            f"an analysis of a service goes into its folder analysis/VERSION, found --out {folder};"
            " leave it out."
        )


def _analyze_service(
    folder: Path, version: str | None, weeks: int | None, json_file: Path | None
) -> None:
    """Each version that was asked for, into the service's folder."""
    from coterie.jobs.config import Service  # noqa: PLC0415
    from coterie.lab.collaboration.of_service import analyze_version, chosen  # noqa: PLC0415

    service = Service.load(folder)
    versions = chosen(service, version, weeks)
    with drawn() as progress:
        written = [analyze_version(service, one, progress=progress) for one in versions]
    if not written:
        say("every one of these versions has its analysis already; --version makes one anew")
    for one in written:
        say_written("analysis", one, "report.html; the dashboard shows it")
    write_result(json_file, {"written": [str(one) for one in written]})


class _Measured(NamedTuple):
    """The report, of nobody where all are new; that of new users where there are any; whether the
    model had trained on those it was measured on; and how many items there are.
    """

    report: Any
    of_new_users: Any
    in_sample: bool
    n_items: int


def _evaluate(
    run: Path,
    split: SplitPart,
    metrics: list[str],
    data: Path | None,
    device: str,
    *,
    in_sample: bool,
) -> _Measured:
    from coterie.data.split import Part  # noqa: PLC0415
    from coterie.evaluation.evaluate import evaluate as evaluate_model  # noqa: PLC0415
    from coterie.evaluation.evaluate import evaluate_new_users  # noqa: PLC0415
    from coterie.training.runs import load_run  # noqa: PLC0415

    loaded, part = load_run(run, data, device, in_sample=in_sample), Part[split.name]
    if loaded.model.is_refit:
        say(f"{run}: a refit, measured on users it was trained on: the values are too good")
    cases, n_items = loaded.dataset.cases(part), loaded.dataset.n_items
    of_new_users = evaluate_new_users(loaded.dataset, part, metrics=metrics)
    if of_new_users is not None and not len(cases.user_index):
        nobody = of_new_users.take(cases.user_index)
        return _Measured(nobody, of_new_users, loaded.model.is_refit, n_items)
    with drawn() as progress:
        report = evaluate_model(
            loaded.model,
            cases,
            metrics=metrics,
            user_ids=loaded.dataset.users,
            train=loaded.dataset.train,
            progress=progress,
        )
    return _Measured(report, of_new_users, loaded.model.is_refit, n_items)
