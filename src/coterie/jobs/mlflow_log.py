"""A registered version beside other experiments, in MLflow, for whoever keeps them there.

The registry stays the one that counts: what is logged is a copy for looking at. MLflow's own
variables say where it goes (``MLFLOW_TRACKING_URI``, and those of its log-in).
"""

import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

from coterie.errors import ConfigError, Interrupted
from coterie.extras import require
from coterie.registry import Version

log = logging.getLogger(__name__)

_NUMBERS = ("test", "against", "lists", "training", "seconds")
_URI = "MLFLOW_TRACKING_URI"
# A server that is out of reach must not hold the job up for minutes, and MLflow tells its makers
# of no use that is ours. Whoever sets a variable is heeded.
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


def logged(version: Version, experiment: str) -> str | None:
    """Logs a version as `log_version` does; what goes wrong is a warning, and None."""
    try:
        return log_version(version, experiment)
    except Interrupted:
        raise
    except Exception as error:  # MLflow's stores and plug-ins raise anything
        log.warning("%s: not logged to MLflow: %s", version.name, error)
        return None


def log_version(version: Version, experiment: str) -> str:
    """Logs a version as one run: its metrics, its configuration, its gates and where it is from.

    Args:
        version: A registered one.
        experiment: Name of MLflow's experiment, made if it is not there.

    Returns:
        MLflow's id of the run; of the one that is there, if the version was logged before.

    Raises:
        ConfigError: if ``MLFLOW_TRACKING_URI`` is not set.
        MissingPackageError: if mlflow is not installed.
    """
    client = _client()
    found = client.get_experiment_by_name(experiment)
    place = client.create_experiment(experiment) if found is None else found.experiment_id
    there = client.search_runs([place], f"tags.`coterie.version` = '{version.name}'", max_results=1)
    return str(there[0].info.run_id) if there else _write(client, place, version)


def _client() -> Any:
    if not os.environ.get(_URI):
        raise ConfigError(f"the variable {_URI} must say where MLflow is, it is not; export it.")
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    return require("mlflow", "mlflow", "logging to MLflow").MlflowClient()


def _write(client: Any, place: str, version: Version) -> str:
    run = str(client.create_run(place, run_name=version.name, tags=tags_of(version)).info.run_id)
    for name, value in metrics_of(version.card).items():
        client.log_metric(run, name, value)
    for name, value in _flat(version.card.get("config", {}), "."):
        client.log_param(run, name, value)
    client.set_terminated(run, "FINISHED" if version.passed else "FAILED")
    return run


def tags_of(version: Version) -> dict[str, str]:
    """Where a version comes from, and each gate's verdict."""
    card = version.card
    known = ("fingerprint", "data", "parent", "week", "window", "metric", "by", "coterie")
    tags = {f"coterie.{name}": str(card[name]) for name in known if card.get(name) is not None}
    for gate in card.get("gates", []):
        verdict = "passed" if gate["passed"] else "failed"
        found = "nothing to hold it against" if gate["value"] is None else f"{gate['value']:.4g}"
        tags[f"gate.{gate['name']}"] = f"{verdict}: {found}, must be {gate['bound']}"
    return tags | {"coterie.version": version.name, "coterie.passed": str(version.passed).lower()}


def metrics_of(card: Mapping[str, Any]) -> dict[str, float]:
    """Every number of a card by its place, as in ``test/ndcg_at_20``: MLflow's names lack @ and +.

    Example:
        >>> metrics_of({"test": {"users": 90, "ndcg@20": 0.25}, "lists": {"turnover": None}})
        {'test/users': 90.0, 'test/ndcg_at_20': 0.25}
        >>> metrics_of({"against": {"live": {"cohorts": {"101+": {"low": 0.5}}}}})
        {'against/live/cohorts/101_and_more/low': 0.5}
    """
    told = {name: card.get(name, {}) for name in _NUMBERS}
    told["gate"] = {gate["name"]: gate["value"] for gate in card.get("gates", [])}
    return {
        name.replace("@", "_at_").replace("+", "_and_more"): float(value)
        for name, value in _flat(told, "/")
        if isinstance(value, int | float)
    }


def _flat(values: Mapping[str, Any], sign: str, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, sign, f"{before}{name}{sign}")
        else:
            yield f"{before}{name}", value
