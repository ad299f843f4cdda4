"""A trained model as an ONNX graph: served with ONNX Runtime and NumPy, without torch and without
this package.

Apart from the artifact because it is for other programs: it leaves out what only Coterie reads, and
goes one way.

The graph is written node by node rather than traced from torch: a network here is a dozen nodes of
the standard operator set, so that needs one small package, takes no seconds and follows no tracer's
versions (decision 5).

A history enters as row numbers, and the rows of the first layer are summed by a scan over the
columns of the input: no history × catalogue matrix, and no batch × length × width one either.

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
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor, nn

import coterie
from coterie.errors import ConfigError
from coterie.files import publish_folder, write_manifest
from coterie.models.autoencoder import Autoencoder, TanhAutoencoder
from coterie.models.ease import Ease
from coterie.models.ials import Ials
from coterie.models.item_item import ItemItem
from coterie.models.linear_path_vae import LinearPathVAE
from coterie.models.multdae import MultDAE
from coterie.models.multvae import MultVAE
from coterie.models.popularity import Popularity
from coterie.models.recvae import LAYER_NORM_EPS, RecVAE
from coterie.training.networks import Network
from coterie.training.trained_model import TrainedModel

SCHEMA = "coterie.onnx/1"

# As old as the operators allow, so that a runtime of 2023 (ONNX Runtime 1.14) reads the graph too.
_OPSET, _IR_VERSION = 18, 8
_WEIGHTS = "weights.bin"


def export_onnx(model: TrainedModel, folder: str | Path) -> None:
    """Writes the scorer as ``model.onnx``, with its catalogue beside it; an older export there is
    replaced.

    The folder holds ``model.onnx`` (the graph), ``weights.bin`` (its weights, as ONNX external
    data, so that no size is too large), ``items.parquet`` (item_id, popularity and, where known,
    title, in the graph's order) and ``manifest.json`` (checksums, and what the input must be).

    The graph has one input, ``items``, int64 ``[batch, length]``: the row numbers in
    ``items.parquet`` of what each user has had, each at most once a row; any negative number is
    padding, anywhere in the row. A number beyond the catalogue is refused by the runtime. It has
    one output, ``scores``, float32 ``[batch, n_items]``: what `TrainedModel.score` gives, within
    float32 rounding. A row of nothing but padding has finite scores;
    `coterie.recommend.engine.recommend` ranks by popularity there, and a server should do so, too.

    Args:
        model: An autoencoder, EASE or popularity.
        folder: Where the export goes.

    Raises:
        ConfigError: if the package onnx is missing, the model is another one, or ``folder`` holds
            something else.

    Example:
        >>> import tempfile
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
    onnx = _library()
    with publish_folder(folder) as aside:
        with (aside / _WEIGHTS).open("wb") as weights:
            graph = _Graph(onnx, weights)
            _add_scores(graph, model.network)
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


def _library() -> ModuleType:
    try:
        import onnx  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "exporting needs the package onnx; pip install 'coterie[onnx]'."
        ) from error
    return onnx


def _convention(n_items: int) -> dict[str, Any]:
    """What a program that has only the folder must know."""
    return {
        "input": {
            "name": "items",
            "type": "int64",
            "shape": ["batch", "length"],
            "meaning": (
                "row numbers of items.parquet, from 0, each at most once a row; negative numbers"
                " are padding"
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
        "opset": _OPSET,
    }


class _Graph:
    """An ONNX graph under construction: nodes in order, small constants inside, weights in a file
    beside it.
    """

    def __init__(self, onnx: ModuleType, weights: BinaryIO) -> None:
        self.types = onnx.TensorProto
        self._onnx = onnx
        self._weights = weights
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def weight(self, *parts: Tensor) -> str:
        """Writes parts, one below the other, as one float32 constant."""
        start = self._weights.tell()
        for part in parts:
            part.detach().cpu().float().contiguous().numpy().tofile(self._weights)
        rows, *rest = parts[0].shape
        shape = (rows + sum(len(part) for part in parts[1:]), *rest)
        tensor = self.types(name=self._name(), data_type=self.types.FLOAT, dims=shape)
        tensor.data_location = self.types.EXTERNAL
        for key, value in {
            "location": _WEIGHTS,
            "offset": start,
            "length": self._weights.tell() - start,
        }.items():
            tensor.external_data.add(key=key, value=str(value))
        return self._add_constant(tensor)

    def constant(self, value: Any, dtype: type = np.int64) -> str:
        """A small constant, kept in the graph."""
        return self._add_constant(
            self._onnx.numpy_helper.from_array(np.array(value, dtype), self._name())
        )

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Adds a node and returns its output's name."""
        output = output or self._name()
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, [output], **attributes))
        return output

    def sum_rows(self, weight: str, rows: str, zeros: str, **output: str) -> str:
        """``[batch, dim]``: for each row of ``rows`` ([batch, length]) the sum of the rows of
        ``weight`` it names.

        A scan over the columns: a gather at once would hold batch × length × dim numbers, gigabytes
        for EASE.
        """
        helper, types = self._onnx.helper, self.types
        nodes = [
            helper.make_node("Gather", [weight, "row"], ["gathered"]),
            helper.make_node("Add", ["sum", "gathered"], ["next_sum"]),
        ]
        inputs = [
            helper.make_tensor_value_info("sum", types.FLOAT, None),
            helper.make_tensor_value_info("row", types.INT64, None),
        ]
        body = helper.make_graph(
            nodes,
            "add_one_item",
            inputs,
            [helper.make_tensor_value_info("next_sum", types.FLOAT, None)],
        )
        return self.node(
            "Scan", zeros, rows, body=body, num_scan_inputs=1, scan_input_axes=[1], **output
        )

    def model(self, n_items: int) -> Any:
        """The whole, from ``items`` to ``scores``."""
        helper, types = self._onnx.helper, self.types
        items = helper.make_tensor_value_info("items", types.INT64, ["batch", "length"])
        scores = helper.make_tensor_value_info("scores", types.FLOAT, ["batch", n_items])
        graph = helper.make_graph(self._nodes, "scorer", [items], [scores], self._constants)
        opset = helper.make_opsetid("", _OPSET)
        return helper.make_model(
            graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="coterie"
        )

    def _name(self) -> str:
        return f"v{len(self._nodes) + len(self._constants)}"

    def _add_constant(self, tensor: Any) -> str:
        self._constants.append(tensor)
        return str(tensor.name)


def _add_scores(graph: _Graph, network: Network) -> None:
    if isinstance(network, Popularity):
        graph.node(
            "Expand",
            graph.weight(network.counts),
            _block_shape(graph, network.n_items),
            output="scores",
        )
    elif isinstance(network, Ease):
        _history_sum(graph, network.weight, output="scores")
    elif isinstance(network, LinearPathVAE) and isinstance(network.path, Ease):
        logits = _decode(graph, network, _mean(graph, _tanh_encoder(graph, network)))
        linear = graph.node(
            "Mul",
            _history_sum(graph, network.path.weight),
            graph.constant(network.path_weight, np.float32),
        )
        graph.node("Add", logits, linear, output="scores")
    elif isinstance(network, MultVAE) and not isinstance(network, LinearPathVAE):
        _decode(graph, network, _mean(graph, _tanh_encoder(graph, network)), output="scores")
    elif isinstance(network, MultDAE):
        _decode(
            graph, network, graph.node("Tanh", _tanh_encoder(graph, network)[0]), output="scores"
        )
    elif isinstance(network, RecVAE):
        _linear(
            graph, _mean(graph, _dense_encoder(graph, network)), network.output, output="scores"
        )
    elif isinstance(network, ItemItem | Ials | LinearPathVAE):
        raise ConfigError(
            "only the autoencoders (a linear path being ease), ease and popularity can be"
            " exported, ONNX has no sparse matrix and solves no equations, found"
            f" {type(network).__name__}; export one of those, or serve with Coterie."
        )
    else:
        raise ConfigError(
            f"only networks of this library can be exported, found {type(network).__name__}; export"
            " what it is made of."
        )


def _block_shape(graph: _Graph, width: int) -> str:
    """The shape [batch, width]."""
    return graph.node(
        "Concat", graph.node("Shape", "items", start=0, end=1), graph.constant([width]), axis=0
    )


def _history_sum(graph: _Graph, weight: Tensor, **output: str) -> str:
    """``[batch, dim]``: the rows of ``weight`` summed over each history.

    A row of zeros goes before the first, and padding names it. An item beyond the catalogue is then
    beyond the table, too, which the runtime refuses; with the zeros last it would be taken for
    padding.
    """
    table = graph.weight(weight.new_zeros(1, weight.shape[1]), weight)
    rows = graph.node("Add", graph.node("Max", "items", graph.constant(-1)), graph.constant(1))
    # One more column of padding: ONNX Runtime (1.31) ends the process when a scan has nothing to go
    # over.
    rows = graph.node("Pad", rows, graph.constant([0, 0, 0, 1]))
    zeros = graph.node("ConstantOfShape", _block_shape(graph, weight.shape[1]))
    return graph.sum_rows(table, rows, zeros, **output)


def _first_layer(graph: _Graph, network: Autoencoder) -> str:
    """What the first layer gives for clean histories."""
    given = graph.node(
        "Cast", graph.node("GreaterOrEqual", "items", graph.constant(0)), to=graph.types.FLOAT
    )
    counts = graph.node("ReduceSum", given, graph.constant([1]), keepdims=1)
    norm = graph.node("Sqrt", graph.node("Max", counts, graph.constant(1, np.float32)))
    mean = graph.node("Div", _history_sum(graph, network.input.weight), norm)
    return graph.node("Add", mean, graph.weight(network.input.bias))


def _tanh_encoder(graph: _Graph, network: TanhAutoencoder) -> tuple[str, int]:
    """The code, and its width."""
    h, layers = _first_layer(graph, network), [network.input, *network.encoder]
    for layer in layers[1:]:
        h = _linear(graph, graph.node("Tanh", h), layer)
    return h, len(layers[-1].get_parameter("bias"))


def _dense_encoder(graph: _Graph, network: RecVAE) -> tuple[str, int]:
    """RecVAE's code, and its width."""
    outputs: list[str] = []
    h = _first_layer(graph, network)
    for layer, norm in zip([*network.encoder, network.code], network.norms, strict=True):
        swish = graph.node("Mul", h, graph.node("Sigmoid", h))
        scale, bias = (graph.weight(norm.get_parameter(name)) for name in ("weight", "bias"))
        outputs.append(graph.node("LayerNormalization", swish, scale, bias, epsilon=LAYER_NORM_EPS))
        h = _linear(graph, outputs[-1], layer)
        if layer is not network.code:
            h = graph.node("Sum", h, *outputs)
    return h, len(network.code.bias)


def _mean(graph: _Graph, code: tuple[str, int]) -> str:
    """The first half of a code, the posterior mean."""
    name, width = code
    return graph.node("Slice", name, *(graph.constant([number]) for number in (0, width // 2, 1)))


def _decode(graph: _Graph, network: TanhAutoencoder, z: str, **output: str) -> str:
    for layer in network.decoder:
        z = graph.node("Tanh", _linear(graph, z, layer))
    return _linear(graph, z, network.output, **output)


def _linear(graph: _Graph, h: str, layer: nn.Module, **output: str) -> str:
    weight, bias = (graph.weight(layer.get_parameter(name)) for name in ("weight", "bias"))
    return graph.node("Gemm", h, weight, bias, transB=1, **output)
