"""An ONNX graph under construction, node by node; what of it several networks need.

Nothing here imports the package onnx: who exports hands it in.
"""

from functools import cached_property
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor, nn

WEIGHTS_FILE = "weights.bin"

# As old as the operators allow, so that a runtime of 2023 (ONNX Runtime 1.14) reads the graph too.
OPSET, IR_VERSION = 18, 8


class OnnxGraph:
    """From the input ``items``, row numbers with negative numbers as padding, to ``scores``.

    Nodes are in order, small constants inside, weights in a file beside it.

    Args:
        onnx: The package.
        weights: Where the weights go.
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
            "location": WEIGHTS_FILE,
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

    def block_shape(self, width: int) -> str:
        """The shape [batch, width]."""
        return self.node(
            "Concat", self.node("Shape", "items", start=0, end=1), self.constant([width]), axis=0
        )

    @cached_property
    def history(self) -> str:
        """``[batch, length + 1]``: each row of the input sorted downwards, what comes again in it
        replaced by padding.

        One more column of padding: ONNX Runtime (1.31) ends the process when a scan has nothing to
        go over.
        """
        items = self.node("Pad", "items", self.constant([0, 0, 0, 1]), self.constant(-1))
        length = self.node("Shape", items, start=1, end=2)
        ordered = self._name()
        self._nodes.append(
            self._onnx.helper.make_node("TopK", [items, length], [ordered, f"{ordered}_place"])
        )
        before = self.columns(ordered, 0, -1)
        after = self.columns(ordered, 1, 2**31)
        kept = self.node("Where", self.node("Equal", before, after), self.constant(-1), after)
        return self.node("Concat", self.columns(ordered, 0, 1), kept, axis=1)

    @cached_property
    def lengths(self) -> str:
        """``[batch, 1]`` float: how many items each history has."""
        known = self.node("GreaterOrEqual", self.history, self.constant(0))
        given = self.node("Cast", known, to=self.types.FLOAT)
        return self.node("ReduceSum", given, self.constant([1]), keepdims=1)

    @cached_property
    def counts(self) -> str:
        """``[batch, 1]`` float: the same, 1 for an empty one."""
        return self.node("Max", self.lengths, self.constant(1, np.float32))

    def linear(self, h: str, layer: nn.Module, **output: str) -> str:
        """A dense layer: ``layer`` has a weight ``[n_out, n_in]`` and a bias."""
        weight, bias = (self.weight(layer.get_parameter(name)) for name in ("weight", "bias"))
        return self.node("Gemm", h, weight, bias, transB=1, **output)

    def columns(self, block: str, start: int, stop: int) -> str:
        """Some columns of a ``[batch, width]`` block."""
        return self.node("Slice", block, *(self.constant([n]) for n in (start, stop, 1)))

    def history_sum(self, weight: Tensor, **output: str) -> str:
        """``[batch, dim]``: the rows of ``weight`` summed over each history.

        A row of zeros goes before the first, and padding names it. An item beyond the catalogue is
        then beyond the table, too, which the runtime refuses; with the zeros last it would be taken
        for padding.
        """
        table = self.weight(weight.new_zeros(1, weight.shape[1]), weight)
        known = self.node("Max", self.history, self.constant(-1))
        rows = self.node("Add", known, self.constant(1))
        zeros = self.node("ConstantOfShape", self.block_shape(weight.shape[1]))
        return self._sum_rows(table, rows, zeros, **output)

    def _sum_rows(self, weight: str, rows: str, zeros: str, **output: str) -> str:
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
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="coterie"
        )

    def _name(self) -> str:
        return f"v{len(self._nodes) + len(self._constants)}"

    def _add_constant(self, tensor: Any) -> str:
        self._constants.append(tensor)
        return str(tensor.name)
