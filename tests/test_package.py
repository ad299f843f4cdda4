"""The package's door, its rooms and its documentation, held by tests."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest

import coterie
from coterie.cli import app

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "coterie"

KNOWS = {
    "errors": set(),
    "extras": {"errors"},
    "fingerprints": set(),
    "files": {"errors"},
    "locks": {"errors", "files"},
    "map_file": {"errors", "files"},
    "plain_table": set(),
    "show": {"errors", "data", "ranking"},
    "sparse": set(),
    "running": {"errors", "sparse"},
    "data": {"errors", "extras", "files", "running"},
    "simulation": {"errors", "files", "running", "data"},
    "objectives": {"errors", "sparse"},
    "networks": {"errors", "extras", "sparse", "objectives"},
    "models": {"errors", "networks"},
    "config": {"errors", "models", "evaluation"},
    "ranking": {
        "errors", "extras", "files", "fingerprints", "plain_table", "sparse", "running", "data",
    },
    "store": {"errors", "extras", "files", "locks"},
    "serving": {
        "errors", "extras", "data", "models", "ranking", "store", "training", "registry",
        "experiment",
    },
    "experiment": {
        "errors", "extras", "files", "locks", "plain_table", "running", "data", "models",
        "evaluation", "experiment/statistics",
    },
    "stream": {"errors", "extras", "files", "running", "data", "ranking"},
    "evaluation": {"errors", "files", "plain_table", "sparse", "running", "data", "ranking"},
    "export": {"errors", "extras", "files", "networks", "training"},
    "training": {
        "errors", "extras", "files", "fingerprints", "locks", "sparse", "running", "data",
        "objectives", "networks", "models", "config", "ranking", "evaluation",
    },
    "backtesting": {
        "errors", "extras", "files", "locks", "plain_table", "running", "data", "config",
        "evaluation", "training",
    },
    "tuning": {
        "errors", "extras", "files", "locks", "plain_table", "running", "data", "models", "config",
        "evaluation", "training",
    },
    "registry": {"errors", "files", "locks", "training"},
    "experiment/statistics": {"errors", "experiment"},
    "dashboard": {
        "errors", "extras", "files", "data", "models", "config", "ranking", "evaluation",
        "training", "store", "registry", "experiment", "serving", "jobs", "show", "backtesting",
        "tuning", "map_file", "dashboard/pages",
    },
    "dashboard/pages": {
        "errors", "extras", "data", "models", "config", "ranking", "evaluation", "training",
        "store", "registry", "experiment", "jobs", "show", "backtesting", "tuning", "map_file",
        "dashboard",
    },
    "jobs": {
        "errors", "extras", "files", "fingerprints", "locks", "plain_table", "running", "data",
        "experiment", "simulation", "models", "config", "ranking", "stream", "evaluation",
        "training", "registry", "store", "serving",
    },
}  # fmt: skip
"""The arrows of docs/architecture.md; lab and cli may know everything."""


def imports_of(path: Path) -> set[str]:
    """The rooms that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        found |= {name.split(".")[1] for name in names if name.startswith("coterie.")}
    return found


@pytest.mark.parametrize("room", KNOWS)
def test_rooms_know_only_what_the_architecture_says(room: str) -> None:
    modules = (
        [SOURCE / f"{room}.py"]
        if (SOURCE / f"{room}.py").exists()
        else sorted((SOURCE / room).glob("*.py"))
    )
    assert modules
    for module in modules:
        assert imports_of(module) <= KNOWS[room] | {room}, module


def functions_with_imports(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        and any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(function))
    ]


def test_configurations_import_networks_through_the_torch_door_alone() -> None:
    """At the top of a module of models/ networks are imported for types only."""
    for module in sorted((SOURCE / "models").glob("*.py")):
        for node in ast.parse(module.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith(("coterie.networks", "torch")), module


def test_networks_training_and_objectives_have_no_imports_in_functions() -> None:
    for room in ("networks", "training", "objectives", "evaluation"):
        for module in sorted((SOURCE / room).glob("*.py")):
            assert not functions_with_imports(module), module


def test_production_does_not_know_the_laboratory() -> None:
    for module in sorted(SOURCE.rglob("*.py")):
        room = module.relative_to(SOURCE).parts[0]
        if room not in ("lab", "cli", "__init__.py"):
            assert "lab" not in imports_of(module), module


def test_modules_form_no_cycle() -> None:
    TopologicalSorter({dotted(path): loaded_by(path) for path in SOURCE.rglob("*.py")}).prepare()


def dotted(path: Path) -> str:
    """A module's name."""
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


def loaded_by(path: Path) -> set[str]:
    """The modules of Coterie's that are loaded with a module; not those that a function or a type
    checker loads.
    """
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("coterie"):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one for one in inner if is_module(one)} or {str(node.module)}
    # Every module may read the package's version; what the package loads is nothing of ours.
    return found - {"coterie"}


def is_module(name: str) -> bool:
    """Whether a dotted name is a module's or a package's."""
    path = SOURCE.parent / name.replace(".", "/")
    return path.with_suffix(".py").exists() or path.is_dir()


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function in the source, as ``path:name``."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                yield f"{path.relative_to(SOURCE)}:{node.name}", node


def n_parameters(function: ast.FunctionDef) -> int:
    """Without ``self`` and ``cls``."""
    given = function.args
    named = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len(named) - (named[:1] in (["self"], ["cls"]))


MANY_PARAMETERS = {
    "evaluation/evaluate.py:evaluate": "the one call behind the verb",
    "lab/bench/scoring.py:bench_scoring": "the shape of what is measured",
    "lab/collaboration/influence.py:influence_by_distance": "arrays of one computation",
    "lab/reproduce/book.py:reproduce": "the one call behind the verb",
    "training/trainer.py:train": "the one call behind the verb",
    "tuning/tune.py:tune": "the one call behind the verb",
}
"""Signatures of more than eight parameters, each with its reason. Verbs of the command line are
excepted: there a parameter is an option.
"""


def test_signatures_of_more_than_eight_parameters_have_a_reason() -> None:
    long = {
        place
        for place, function in functions()
        if n_parameters(function) > 8 and not place.startswith("cli/")
    }
    assert long == set(MANY_PARAMETERS)


def n_lines(path: Path, function: ast.FunctionDef) -> int:
    """Lines of code in a body: no docstring, comment or blank line."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    if not body:
        return 0
    lines = path.read_text(encoding="utf-8").splitlines()[body[0].lineno - 1 : body[-1].end_lineno]
    return sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in lines)


def test_bodies_are_short() -> None:
    lines = [n_lines(SOURCE / place.partition(":")[0], node) for place, node in functions()]
    counted = [n for n in lines if n]
    assert np.median(counted) <= 6
    assert np.percentile(counted, 90) <= 20


def test_every_room_is_in_the_architecture() -> None:
    told = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in SOURCE.iterdir():
        if path.suffix == ".py" and path.stem != "__init__":
            assert f"`{path.name}`" in told, path
        elif path.is_dir() and path.name != "__pycache__":
            assert f"`{path.name}/`" in told, path


PUBLIC = [
    "AnalysisOptions",
    "AnalysisSetting",
    "ApproximateIndex",
    "ArtifactError",
    "BacktestPlan",
    "BspmConfig",
    "CannotWriteError",
    "Cases",
    "ConfigError",
    "ConflictError",
    "CoterieError",
    "DataError",
    "Dataset",
    "EaseConfig",
    "EvaluationReport",
    "Execution",
    "Explanation",
    "GfCfConfig",
    "GivenSplit",
    "Histories",
    "IalsConfig",
    "Interrupted",
    "ItemKnnConfig",
    "LeaveLastOut",
    "LinearPathRecVAEConfig",
    "LinearPathVAEConfig",
    "LivingService",
    "MissingPackageError",
    "MostWatchedConfig",
    "MultDAEConfig",
    "MultVAEConfig",
    "NotFoundError",
    "NumericalError",
    "Part",
    "PopularityConfig",
    "PrepareRules",
    "RankingOptions",
    "RayEngine",
    "RecVAEConfig",
    "Recommendations",
    "Recommender",
    "Rp3BetaConfig",
    "RunConfig",
    "Scorer",
    "SearchChoice",
    "SearchRange",
    "SimulatedService",
    "SlimConfig",
    "SourceError",
    "StrongGeneralisation",
    "TimeSplit",
    "TrainedModel",
    "TrainingConfig",
    "TuningResult",
    "UnavailableError",
    "VampVAEConfig",
    "WarmStart",
    "analyze",
    "backtest",
    "compare",
    "compare_runs",
    "evaluate",
    "explain",
    "export_onnx",
    "load",
    "load_run",
    "load_settings",
    "prepare",
    "read_histories",
    "read_log",
    "recommend",
    "recommend_to_file",
    "recommend_to_folder",
    "refit",
    "similar_items",
    "simulate_dataset",
    "stream_histories",
    "train",
    "tune",
    "write_report",
]


def test_public_names_are_these() -> None:
    """A name is added or removed here on purpose, or not at all."""
    assert sorted(coterie.__all__) == sorted(coterie._HOME) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_can_be_reached_and_is_documented(name: str) -> None:
    value = getattr(coterie, name)
    assert value.__module__ == f"coterie.{coterie._HOME[name]}"
    assert ">>>" in value.__doc__


@pytest.mark.parametrize("name", coterie._OLDER)
def test_older_names_still_work(name: str) -> None:
    assert getattr(coterie, name) is getattr(coterie, coterie._OLDER[name])


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = coterie.no_such_name


def test_import_of_the_package_and_its_data_needs_no_torch() -> None:
    code = (
        "import sys, coterie; coterie.read_log; coterie.prepare; coterie.Dataset; assert 'torch'"
        " not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_verb_is_on_the_page_of_the_command_line() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            assert command.callback is not None
            name = command.callback.__name__.replace("_", "-")
            assert f"coterie {name}" in page, name


def test_every_page_is_in_the_site() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in navigation, page
