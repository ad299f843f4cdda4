"""Recommending by collaborative filtering with variational autoencoders.

    read_log → prepare → Dataset → train → TrainedModel → evaluate, compare, analyze; .recommend,
    .explain, .similar_items; save, load

Names are loaded when first used, so that what needs no torch does not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from coterie.backtesting.plan import BacktestPlan
    from coterie.backtesting.run import backtest
    from coterie.config import RunConfig, TrainingConfig
    from coterie.data.dataset import Dataset
    from coterie.data.prepare import prepare
    from coterie.data.read import read_log
    from coterie.data.rules import (
        GivenSplit,
        LeaveLastOut,
        PrepareRules,
        StrongGeneralisation,
        TimeSplit,
    )
    from coterie.data.split import Cases, Part
    from coterie.errors import (
        ArtifactError,
        CannotWriteError,
        ConfigError,
        ConflictError,
        CoterieError,
        DataError,
        Interrupted,
        MissingPackageError,
        NotFoundError,
        NumericalError,
        SourceError,
        UnavailableError,
    )
    from coterie.evaluation.compare import compare, compare_runs
    from coterie.evaluation.evaluate import evaluate
    from coterie.evaluation.report import EvaluationReport
    from coterie.export import export_onnx
    from coterie.lab.collaboration.analysis import AnalysisOptions, AnalysisSetting
    from coterie.lab.collaboration.analyze import analyze
    from coterie.lab.collaboration.report import write_report
    from coterie.lab.collaboration.settings import load_settings
    from coterie.models.ease import EaseConfig
    from coterie.models.fields import SearchChoice, SearchRange
    from coterie.models.graph_filter import BspmConfig, GfCfConfig
    from coterie.models.ials import IalsConfig
    from coterie.models.item_item import ItemKnnConfig, Rp3BetaConfig, SlimConfig
    from coterie.models.linear_path_recvae import LinearPathRecVAEConfig
    from coterie.models.linear_path_vae import LinearPathVAEConfig
    from coterie.models.most_watched import MostWatchedConfig
    from coterie.models.multdae import MultDAEConfig
    from coterie.models.multvae import MultVAEConfig
    from coterie.models.popularity import PopularityConfig
    from coterie.models.recvae import RecVAEConfig
    from coterie.models.vamp_vae import VampVAEConfig
    from coterie.ranking.approximate import ApproximateIndex
    from coterie.ranking.engine import recommend, recommend_to_file
    from coterie.ranking.explanation import Explanation, explain
    from coterie.ranking.histories import Histories
    from coterie.ranking.history_files import read_histories
    from coterie.ranking.options import RankingOptions
    from coterie.ranking.recommendations import Recommendations
    from coterie.ranking.recommender import Recommender
    from coterie.ranking.scorer import Scorer
    from coterie.ranking.similar import similar_items
    from coterie.running.execution import Execution
    from coterie.simulation.living import LivingService
    from coterie.simulation.service import SimulatedService, simulate_dataset
    from coterie.stream.history_source import stream_histories
    from coterie.stream.ray_engine import RayEngine
    from coterie.stream.to_folder import recommend_to_folder
    from coterie.training.load import load
    from coterie.training.runs import load_run
    from coterie.training.trained_model import TrainedModel
    from coterie.training.trainer import refit, train
    from coterie.training.warm_start import WarmStart
    from coterie.tuning.result import TuningResult
    from coterie.tuning.tune import tune

_HOME = {
    "BacktestPlan": "backtesting.plan",
    "backtest": "backtesting.run",
    "RunConfig": "config",
    "TrainingConfig": "config",
    "Dataset": "data.dataset",
    "prepare": "data.prepare",
    "read_log": "data.read",
    "GivenSplit": "data.rules",
    "LeaveLastOut": "data.rules",
    "PrepareRules": "data.rules",
    "StrongGeneralisation": "data.rules",
    "TimeSplit": "data.rules",
    "Cases": "data.split",
    "Part": "data.split",
    "ArtifactError": "errors",
    "CannotWriteError": "errors",
    "ConfigError": "errors",
    "ConflictError": "errors",
    "CoterieError": "errors",
    "DataError": "errors",
    "Interrupted": "errors",
    "MissingPackageError": "errors",
    "NotFoundError": "errors",
    "NumericalError": "errors",
    "SourceError": "errors",
    "UnavailableError": "errors",
    "compare": "evaluation.compare",
    "compare_runs": "evaluation.compare",
    "evaluate": "evaluation.evaluate",
    "EvaluationReport": "evaluation.report",
    "export_onnx": "export",
    "AnalysisOptions": "lab.collaboration.analysis",
    "AnalysisSetting": "lab.collaboration.analysis",
    "analyze": "lab.collaboration.analyze",
    "load_settings": "lab.collaboration.settings",
    "write_report": "lab.collaboration.report",
    "EaseConfig": "models.ease",
    "SearchChoice": "models.fields",
    "SearchRange": "models.fields",
    "BspmConfig": "models.graph_filter",
    "GfCfConfig": "models.graph_filter",
    "IalsConfig": "models.ials",
    "ItemKnnConfig": "models.item_item",
    "Rp3BetaConfig": "models.item_item",
    "SlimConfig": "models.item_item",
    "LinearPathRecVAEConfig": "models.linear_path_recvae",
    "LinearPathVAEConfig": "models.linear_path_vae",
    "MostWatchedConfig": "models.most_watched",
    "MultDAEConfig": "models.multdae",
    "MultVAEConfig": "models.multvae",
    "PopularityConfig": "models.popularity",
    "RecVAEConfig": "models.recvae",
    "VampVAEConfig": "models.vamp_vae",
    "ApproximateIndex": "ranking.approximate",
    "recommend_to_file": "ranking.engine",
    "Explanation": "ranking.explanation",
    "explain": "ranking.explanation",
    "Histories": "ranking.histories",
    "read_histories": "ranking.history_files",
    "recommend": "ranking.engine",
    "RankingOptions": "ranking.options",
    "Recommendations": "ranking.recommendations",
    "Recommender": "ranking.recommender",
    "Scorer": "ranking.scorer",
    "similar_items": "ranking.similar",
    "Execution": "running.execution",
    "LivingService": "simulation.living",
    "SimulatedService": "simulation.service",
    "simulate_dataset": "simulation.service",
    "stream_histories": "stream.history_source",
    "RayEngine": "stream.ray_engine",
    "recommend_to_folder": "stream.to_folder",
    "load": "training.load",
    "load_run": "training.runs",
    "TrainedModel": "training.trained_model",
    "refit": "training.trainer",
    "train": "training.trainer",
    "WarmStart": "training.warm_start",
    "TuningResult": "tuning.result",
    "tune": "tuning.tune",
}

_OLDER = {
    "Choice": "SearchChoice",
    "Range": "SearchRange",
    "Service": "SimulatedService",
    "Setting": "AnalysisSetting",
    "open_histories": "stream_histories",
}
"""Names of version 0.1.0, which still work."""

__all__ = [
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


def __getattr__(name: str) -> Any:
    new = _OLDER.get(name, name)
    if new not in _HOME:
        raise AttributeError(f"module 'coterie' has no attribute {name!r}")
    value = getattr(import_module(f"coterie.{_HOME[new]}"), new)
    globals()[name] = value
    return value
