"""Configurations, manifests and reports are read where torch cannot be imported."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from coterie.data.ids import IdMap
from coterie.evaluation.report import EvaluationReport

OLD = Path(__file__).parent / "data" / "v0.1.0"

DOORS = {
    "configuration": "RunConfig.of(json.loads((old / 'run/config.json').read_text())['config'])",
    "every model": "[RunConfig.of({'model': {'name': name}}) for name in MODEL_NAMES]",
    "toml": "as_toml(RunConfig(), comments=True)",
    "manifest": "read_model_manifest(old / 'run')",
    "metric": "Metric.parse('recall@20').label",
    "report": "str(read('one'))",
    "assignment": "Assigner([Allocation('one', 'lists', '', 0, 1, {'a': 1})]).arms([7])",
    "events": "same_ratio([Moments.of(np.ones((5, 2)))] * 2), EventSources(), Habits()",
    "comparison": "str(compare(read('one'), read('other'), n_resamples=50, seed=0))",
    "experiment": "statistics.bounds([0.5, 1.0])",
    "panel": "PanelLaw(n_users=9).draw(0)",
}

PROGRAM = """
import json
import sys
from pathlib import Path


class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch cannot be imported here")


sys.meta_path.insert(0, NoTorch())

import numpy as np
import pyarrow.parquet as pq

from coterie.config import MODEL_NAMES, RunConfig, as_toml
from coterie.evaluation.compare import compare
from coterie.evaluation.metrics import Metric
from coterie.evaluation.report import EvaluationReport
from coterie.experiment.assignment import Allocation, Assigner
from coterie.experiment import statistics
from coterie.simulation.panel import PanelLaw
from coterie.experiment import EventSources
from coterie.experiment.checks import same_ratio
from coterie.experiment.statistics.moments import Moments
from coterie.simulation.traffic import Habits
from coterie.training.artifact import read_model_manifest

old, reports = Path(sys.argv[1]), Path(sys.argv[2])


def read(name):
    return EvaluationReport.from_table(pq.read_table(reports / f"{name}.parquet"))


print(eval(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    for seed, name in enumerate(("one", "other")):
        values = np.random.default_rng(seed).random(30)
        users = IdMap.of(range(30))
        report = EvaluationReport(users, np.full(30, 7), {"ndcg@100": values})
        pq.write_table(report.per_user_table(), folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize("door", list(DOORS))
def test_reading_needs_no_torch(door: str, reports: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(OLD), str(reports), DOORS[door]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
