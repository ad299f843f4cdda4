"""A trained model as an ONNX graph: served with ONNX Runtime and NumPy, without torch and without
this package.

Apart from the artifact because it is for other programs: it leaves out what only Coterie reads, and
goes one way.

The graph is written node by node rather than traced from torch: a network here is a dozen nodes of
the standard operator set, so that needs one small package, takes no seconds and follows no tracer's
versions (decision 5).

A history enters as row numbers, and the rows of the first layer are summed by a scan over the
columns of the input: no history × catalogue matrix, and no batch × length × width one either.
With ONNX Runtime below 1.31 a batch of no histories ends the process, so none must be given.

All that serving takes (pyarrow is one of several readers of Parquet)::

    import numpy as np
    import onnxruntime
    import pyarrow.parquet as pq

    session = onnxruntime.InferenceSession("exported/model.onnx")
    catalogue = pq.read_table("exported/items.parquet")
    ids, popularity = catalogue["item_id"].to_pylist(), catalogue["popularity"].to_numpy()
    row_of = {item_id: row for row, item_id in enumerate(ids)}


    def recommend(histories, k):
        known = [
            sorted({row_of[item_id] for item_id in history if item_id in row_of})
            for history in histories
        ]
        items = np.full((len(known), max(map(len, known))), -1)
        for line, rows in zip(items, known):
            line[: len(rows)] = rows
        (scores,) = session.run(["scores"], {"items": items})
        for line, rows in zip(scores, known):
            if not rows:
                line[:] = popularity
            line[rows] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        lists = zip(best, scores)
        return [[ids[row] for row in rows if line[row] > -np.inf] for rows, line in lists]
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import coterie
from coterie.errors import ConfigError
from coterie.extras import require
from coterie.files import publish_folder, write_manifest
from coterie.networks.network import Exportable
from coterie.networks.onnx_graph import OPSET, WEIGHTS_FILE, OnnxGraph
from coterie.training.trained_model import TrainedModel

SCHEMA = "coterie.onnx/1"


def export_onnx(model: TrainedModel, folder: str | Path) -> None:
    """Writes the scorer as ``model.onnx``, with its catalogue beside it; an older export there is
    replaced.

    The folder holds ``model.onnx`` (the graph), ``weights.bin`` (its weights, as ONNX external
    data, so that no size is too large), ``items.parquet`` (item_id, popularity and, where known,
    title, in the graph's order) and ``manifest.json`` (checksums, and what the input must be).

    The graph has one input, ``items``, int64 ``[batch, length]``: the row numbers in
    ``items.parquet`` of what each user has had; repetitions count once, as in training, and any
    negative number is padding, anywhere in the row. A number beyond the catalogue is refused by the
    runtime. It has one output, ``scores``, float32 ``[batch, n_items]``: what `TrainedModel.score`
    gives, within float32 rounding. A row of nothing but padding has finite scores;
    `coterie.ranking.engine.recommend` ranks by popularity there, and a server should do so, too.

    Args:
        model: An autoencoder, EASE or popularity.
        folder: Where the export goes.

    Raises:
        ConfigError: if the package onnx is missing, the model is another one, or ``folder`` holds
            something else.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import onnxruntime
        >>> from coterie import RunConfig, simulate_dataset, train
        >>> data = simulate_dataset(n_users=300, n_items=60, held_out_users=40, seed=1)
        >>> model = train(data, RunConfig.of({"model": {"name": "ease"}}))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_onnx(model, f"{folder}/onnx")
        ...     session = onnxruntime.InferenceSession(f"{folder}/onnx/model.onnx")
        ...     (scores,) = session.run(["scores"], {"items": np.array([[3, 5, 8], [4, -1, -1]])})
        >>> scores.shape == (2, model.n_items)
        True
    """
    if not isinstance(model.network, Exportable):
        raise ConfigError(
            "only the autoencoders (a linear path being ease), ease and popularity can be exported,"
            " ONNX has no sparse matrix and solves no equations, found"
            f" {model.config.model.name}; export one of those, or serve with Coterie."
        )
    onnx = require("onnx", "onnx", "exporting")
    with publish_folder(folder) as aside:
        with (aside / WEIGHTS_FILE).open("wb") as weights:
            graph = OnnxGraph(onnx, weights)
            model.network.add_scores(graph, output="scores")
        onnx.save_model(graph.model(model.n_items), aside / "model.onnx")
        onnx.checker.check_model(str(aside / "model.onnx"), full_check=True)
        columns = {
            "item_id": model.items.values,
            "popularity": pa.array(model.popularity, pa.int64()),
        }
        if model.titles is not None:
            columns["title"] = pa.array(model.titles, pa.string())
        pq.write_table(pa.table(columns), aside / "items.parquet")
        written_by = {"coterie": coterie.__version__, "onnx": onnx.__version__}
        fields = {
            "config": model.config.as_json(),
            "provenance": dict(model.provenance),
            "written_by": written_by,
        }
        write_manifest(aside, SCHEMA, graph=_convention(model.n_items), **fields)


def _convention(n_items: int) -> dict[str, Any]:
    """What a program that has only the folder must know."""
    return {
        "input": {
            "name": "items",
            "type": "int64",
            "shape": ["batch", "length"],
            "meaning": (
                "row numbers of items.parquet, from 0; repetitions count once, negative numbers are"
                " padding"
            ),
        },
        "output": {
            "name": "scores",
            "type": "float32",
            "shape": ["batch", n_items],
            "meaning": (
                "column i scores row i of items.parquet, higher is better, items of the history"
                " included"
            ),
        },
        "opset": OPSET,
    }
