"""What others wrote is read in a process where torch cannot be imported: pages and services need
none.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coterie.config import RunConfig
from coterie.data.dataset import Dataset
from coterie.data.ids import IdMap
from coterie.evaluation.report import EvaluationReport
from coterie.models.fields import SearchRange
from coterie.registry import Registry
from coterie.simulation.service import simulate_dataset
from coterie.store import open_store
from coterie.stream.to_folder import recommend_to_folder
from coterie.training.trainer import train
from coterie.tuning.tune import tune
from small_service import configure

DOORS = {
    "data set": (
        "from coterie.data.dataset import Dataset\n"
        "data = Dataset.load('data')\n"
        "assert data.n_users == 120 and data.train.nnz and data.fingerprint"
    ),
    "recommendations": (
        "from coterie.ranking.written import read_recommendations\n"
        "assert len(read_recommendations('recommendations').for_user('ann')) == 3"
    ),
    "fingerprints, locks, files": (
        "from coterie import files, fingerprints, locks\n"
        "assert files.read_manifest(files.Path('run/model'), 'coterie.model/1')['fingerprint']"
    ),
    "run": (
        "from coterie.training.run_record import read_run\n"
        "run = read_run('run')\n"
        "assert run.config.model.name == 'mult-dae' and run.identity and run.environment\n"
        "assert len(run.history) == 2 and run.provenance['best_epoch'] and run.model"
    ),
    "store": (
        "import sys\nfrom coterie.store import open_store\n"
        "import coterie.store.postgres\n"
        "assert open_store('sqlite:///store').find('ann').item_ids == [2]\n"
        "assert 'psycopg' in sys.modules"
    ),
    "server": (
        "from coterie.serving import create_app\n"
        "app = create_app('sqlite:///store', 'registry')\n"
        "assert '/similar/{item_id}' in app.openapi()['paths']"
    ),
    "service that lives": (
        "from coterie import LivingService\n"
        "service = LivingService(n_users=50, n_items=30, weeks=1)\n"
        "service.write('service', service.first_day, service.last_day)\n"
        "assert service.probabilities([1], service.last_day).shape == (1, service.n_titles)"
    ),
    "study": (
        "from coterie.tuning.study import read_study\n"
        "assert read_study('study').best.number >= 0 and 'complete' in str(read_study('study'))"
    ),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torch-free")
    simulate_dataset(n_users=120, n_items=30, held_out_users=20, seed=1).save(folder / "data")
    data = Dataset.load(folder / "data")
    dae = {"model": {"name": "mult-dae", "latent_dim": 3}, "training": {"epochs": 2}}
    model = train(data, RunConfig.of(dae), out=folder / "run")
    recommend_to_folder(model, {"ann": [1, 2]}, folder / "recommendations", 3)
    ease = RunConfig.of({"model": {"name": "ease"}})
    tune(data, ease, out=folder / "study", search={"model.l2": SearchRange(1, 9)}, n_trials=2)
    catalogue = pa.table({"item_id": [1, 2], "title": ["One", "Two"]})
    of_ann = {"user_id": ["ann"], "row": ["main"], "items": [[1]], "scores": [[0.5]]}
    with open_store(f"sqlite:///{folder}/store") as store:
        store.publish("1", catalogue, [pa.table({**of_ann, "source": ["model"]})], {})
    shutil.copytree(folder / "run", folder / "twin")
    for name in ("one", "other"):
        values = np.random.default_rng(len(name)).random(30)
        report = EvaluationReport(IdMap.of(range(30)), np.full(30, 7), {"ndcg@100": values})
        pq.write_table(report.per_user_table(), folder / f"{name}.parquet")
    registry = Registry(configure(folder / "service", {}).registry)
    for name in ("a", "b"):
        card = {"fingerprint": name, "week": "2026-03-02", "failed": [], "gates": []}
        registry.register(name, folder / "run" / "model", card, passed=True)
    registry.promote("a", by="ann")
    return folder


DASHBOARDS = {
    "door": (
        "from coterie.dashboard import create_dashboard\n"
        "assert '/users' in {route.path for route in create_dashboard('.').routes}"
    ),
    "runs": (
        "from starlette.testclient import TestClient\n"
        "from coterie.dashboard import create_dashboard\n"
        "client = TestClient(create_dashboard('.'), base_url='http://127.0.0.1')\n"
        "paths = ['/', '/runs?name=run', '/runs?name=study', '/runs/compare?name=run&name=twin',"
        " '/runs/reports?a=one.parquet&b=other.parquet']\n"
        "assert [client.get(path).status_code for path in paths] == [200] * 5"
    ),
    "service": (
        "from starlette.testclient import TestClient\n"
        "from coterie.dashboard import create_dashboard\n"
        "client = TestClient(create_dashboard('service'), base_url='http://127.0.0.1')\n"
        "paths = ['/', '/models', '/models?version=a', '/models/compare?a=a&b=b', '/runs']\n"
        "assert [client.get(path).status_code for path in paths] == [200] * 5"
    ),
}
"""SciPy, which comparisons need, breaks where a module is None: there torch is not found."""

_NOT_FOUND = (
    "from importlib.abc import MetaPathFinder\n"
    "class NoTorch(MetaPathFinder):\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name.partition('.')[0] == 'torch':\n"
    "            raise ModuleNotFoundError('torch is not to be imported')\n"
    "del sys.modules['torch']\n"
    "sys.meta_path.insert(0, NoTorch())\n"
)


@pytest.mark.parametrize("of", DASHBOARDS)
def test_pages_need_no_torch(of: str, place: Path) -> None:
    done = run_without_torch(_NOT_FOUND + DASHBOARDS[of], place)
    assert done.returncode == 0, done.stderr


def run_without_torch(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"import sys\nsys.modules['torch'] = None\n{code}"]
    return subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("door", DOORS)
def test_door_opens_without_torch(door: str, place: Path) -> None:
    done = run_without_torch(DOORS[door], place)
    assert done.returncode == 0, done.stderr


def test_torch_cannot_be_imported_where_the_doors_are_opened(tmp_path: Path) -> None:
    done = run_without_torch("import coterie.training.trainer", tmp_path)
    assert "ModuleNotFoundError: import of torch halted" in done.stderr
