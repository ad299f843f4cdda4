"""Recommending by collaborative filtering with variational autoencoders.

    read_log → prepare → Dataset → train → TrainedModel → evaluate, compare, analyze; .recommend,
    .similar_items

Names are loaded when first used, so that what needs no torch does not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from coterie.config import RunConfig, TrainingConfig
    from coterie.data.dataset import Dataset
    from coterie.data.prepare import prepare
    from coterie.data.read import read_log
    from coterie.data.rules import PrepareRules
    from coterie.data.split import Part
    from coterie.errors import CoterieError
    from coterie.evaluation.compare import compare, compare_runs
    from coterie.evaluation.evaluate import evaluate
    from coterie.export import export_onnx
    from coterie.lab.collaboration.analyze import AnalysisOptions, Setting, analyze, load_settings
    from coterie.lab.collaboration.report import write_report
    from coterie.models.ease import EaseConfig
    from coterie.models.fields import SearchChoice, SearchRange
    from coterie.models.ials import IalsConfig
    from coterie.models.item_item import ItemKnnConfig, Rp3BetaConfig, SlimConfig
    from coterie.models.linear_path_vae import LinearPathVAEConfig
    from coterie.models.multdae import MultDAEConfig
    from coterie.models.multvae import MultVAEConfig
    from coterie.models.popularity import PopularityConfig
    from coterie.models.recvae import RecVAEConfig
    from coterie.models.vamp_vae import VampVAEConfig
    from coterie.recommend.engine import recommend_to_file
    from coterie.recommend.history_files import read_histories
    from coterie.recommend.similar import similar_items
    from coterie.simulation.service import Service, simulate_dataset
    from coterie.stream.history_source import open_histories
    from coterie.stream.ray_engine import RayEngine
    from coterie.stream.to_folder import recommend_to_folder
    from coterie.training.trained_model import TrainedModel
    from coterie.training.trainer import train
    from coterie.tuning.result import TuningResult
    from coterie.tuning.tune import tune

_HOME = {
    "AnalysisOptions": "lab.collaboration.analyze",
    "Setting": "lab.collaboration.analyze",
    "analyze": "lab.collaboration.analyze",
    "load_settings": "lab.collaboration.analyze",
    "write_report": "lab.collaboration.report",
    "RunConfig": "config",
    "TrainingConfig": "config",
    "Dataset": "data.dataset",
    "PrepareRules": "data.rules",
    "prepare": "data.prepare",
    "read_log": "data.read",
    "Service": "simulation.service",
    "simulate_dataset": "simulation.service",
    "Part": "data.split",
    "CoterieError": "errors",
    "compare": "evaluation.compare",
    "compare_runs": "evaluation.compare",
    "evaluate": "evaluation.evaluate",
    "export_onnx": "export",
    "EaseConfig": "models.ease",
    "SearchChoice": "models.fields",
    "SearchRange": "models.fields",
    "IalsConfig": "models.ials",
    "ItemKnnConfig": "models.item_item",
    "Rp3BetaConfig": "models.item_item",
    "SlimConfig": "models.item_item",
    "LinearPathVAEConfig": "models.linear_path_vae",
    "MultDAEConfig": "models.multdae",
    "MultVAEConfig": "models.multvae",
    "PopularityConfig": "models.popularity",
    "RecVAEConfig": "models.recvae",
    "VampVAEConfig": "models.vamp_vae",
    "recommend_to_file": "recommend.engine",
    "read_histories": "recommend.history_files",
    "similar_items": "recommend.similar",
    "RayEngine": "stream.ray_engine",
    "open_histories": "stream.history_source",
    "recommend_to_folder": "stream.to_folder",
    "TrainedModel": "training.trained_model",
    "train": "training.trainer",
    "TuningResult": "tuning.result",
    "tune": "tuning.tune",
}

__all__ = [
    "AnalysisOptions",
    "CoterieError",
    "Dataset",
    "EaseConfig",
    "IalsConfig",
    "ItemKnnConfig",
    "LinearPathVAEConfig",
    "MultDAEConfig",
    "MultVAEConfig",
    "Part",
    "PopularityConfig",
    "PrepareRules",
    "RayEngine",
    "RecVAEConfig",
    "Rp3BetaConfig",
    "RunConfig",
    "SearchChoice",
    "SearchRange",
    "Service",
    "Setting",
    "SlimConfig",
    "TrainedModel",
    "TrainingConfig",
    "TuningResult",
    "VampVAEConfig",
    "analyze",
    "compare",
    "compare_runs",
    "evaluate",
    "export_onnx",
    "load_settings",
    "open_histories",
    "prepare",
    "read_histories",
    "read_log",
    "recommend_to_file",
    "recommend_to_folder",
    "similar_items",
    "simulate_dataset",
    "train",
    "tune",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'coterie' has no attribute {name!r}")
    value = getattr(import_module(f"coterie.{_HOME[name]}"), name)
    globals()[name] = value
    return value
