"""Two torch modules as one ONNX file, with a loop over the pieces of the first module's output.

    waves (1, N) -> front -> rows (1, n, ...) -> for each piece: body -> grid (1, t, F, D) -> joined: (1, T, F, D)

torch exports each module with one axis of free length. The file itself computes from n how many pieces there are and
where they end.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

OPSET = 18
IR_VERSION = 10
ENDLESS = 1 << 40  # `Plan.size` of a network that takes all rows at once
EXAMPLE = 8_000  # samples of the wave that the front is exported with


def _operator(kind: str) -> Callable[[Integer, Integer | int], Integer]:
    """The method of `Integer` that adds an ONNX node of this kind."""
    return lambda number, other: number.graph.integer(kind, number, other)


@dataclass(frozen=True)
class Integer:
    """An integer that the ONNX file computes: arithmetic adds nodes to `graph`. For numbers >= 0, as in Python."""

    name: str
    graph: Graph

    __add__, __sub__, __mul__ = _operator("Add"), _operator("Sub"), _operator("Mul")
    __floordiv__, __mod__ = _operator("Div"), _operator("Mod")
    at_least, at_most = _operator("Max"), _operator("Min")

    def __rsub__(self, other: int) -> Integer:
        return self.graph.integer("Sub", other, self)


@dataclass(frozen=True)
class Graph:
    """Nodes of an ONNX graph, and the constants that they use; a graph inside another shares the constants."""

    constants: dict[str, Any] = field(default_factory=dict)
    nodes: list[Any] = field(default_factory=list)

    def add(self, kind: str, *inputs: str | int | Integer, to: str, **attributes: Any) -> None:
        """A node that computes the tensor `to`."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, [self._name(value) for value in inputs], [to], **attributes))

    def integer(self, kind: str, *inputs: Integer | int) -> Integer:
        """A node that computes a whole number."""
        number = Integer(f"{kind}/{len(self.nodes)}", self)
        self.add(kind, *inputs, to=number.name)
        return number

    def _name(self, value: str | int | Integer) -> str:
        from onnx import TensorProto, helper

        if not isinstance(value, int):
            return value if isinstance(value, str) else value.name
        name = f"constant/{value}"
        self.constants[name] = helper.make_tensor(name, TensorProto.INT64, [1], [value])
        return name


@dataclass(frozen=True)
class Plan:
    """How front and body become one file. Piece i is rows i * `stride` to i * `stride` + `size`, cut off at `end`.

    piece      shape of an example of a piece; its axis 1 is free, unless it is `size`
    counts     n -> `end`, the number of pieces, and the largest T
    shortest   samples of the shortest wave that the front takes
    """

    front: nn.Module
    body: nn.Module
    piece: tuple[int, ...]
    size: int
    stride: int
    counts: Callable[[Integer], tuple[Integer, Integer | int, Integer]]
    shortest: int


def build(plan: Plan, dim: int) -> bytes:
    """The ONNX file of a plan: input "waves" (1, N), output "grid" (1, T, F, D), N and T free."""
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
        from onnx import TensorProto, compose, helper
    except ImportError:
        raise ImportError('exporting needs onnx and onnxscript: pip install "nearfar[onnx]"') from None
    free = None if plan.piece[1] == plan.size else (16, plan.size if plan.size < ENDLESS else None)
    example = (1, max(plan.shortest, EXAMPLE))
    front = compose.add_prefix(_exported(plan.front, example, (plan.shortest, None)), "front/").graph
    body = compose.add_prefix(_exported(plan.body, plan.piece, free), "body/").graph
    rows, columns = front.output[0].name, body.output[0].type.tensor_type.shape.dim[2].dim_value
    grids = [1, None, columns, dim]

    graph = Graph()
    graph.add("Identity", "waves", to=front.input[0].name)
    graph.nodes.extend(front.node)
    graph.add("Shape", rows, to="n", start=1, end=2)
    end, count, longest = plan.counts(Integer("n", graph))
    loop = _loop(plan, body, rows, end, grids, graph.constants)
    graph.add("Loop", count, "true", "nothing", to="all", body=loop)
    graph.add("Slice", "all", 0, longest, 1, to="grid")
    constants = [
        helper.make_tensor("true", TensorProto.BOOL, [], [True]),
        helper.make_tensor("nothing", TensorProto.FLOAT, [1, 0, columns, dim], []),
    ]
    whole = helper.make_graph(
        graph.nodes,
        "nearfar",
        [_tensor("waves", [1, "samples"])],
        [_tensor("grid", [1, "T", columns, dim])],
        [*front.initializer, *body.initializer, *constants, *graph.constants.values()],
    )
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _loop(plan: Plan, body: Any, rows: str, end: Integer, grids: list[int | None], constants: dict[str, Any]) -> Any:
    """The graph of one turn: piece number i through the body, its grid appended to the others."""
    from onnx import TensorProto, helper

    graph = Graph(constants)
    start = Integer("i", graph) * plan.stride
    stop = (start + plan.size).at_most(end)
    graph.add("Slice", rows, start, stop, 1, to=body.input[0].name)
    graph.nodes.extend(body.node)
    graph.add("Concat", "before", body.output[0].name, to="after", axis=1)
    graph.add("Identity", "go on", to="still go on")
    before = [_tensor("i", [], TensorProto.INT64), _tensor("go on", [], TensorProto.BOOL), _tensor("before", grids)]
    after = [_tensor("still go on", [], TensorProto.BOOL), _tensor("after", grids)]
    return helper.make_graph(graph.nodes, "piece", before, after)


def _tensor(name: str, shape: list[Any], kind: int = 1) -> Any:  # 1: float32
    from onnx import helper

    return helper.make_tensor_value_info(name, kind, shape)


def _exported(module: nn.Module, shape: tuple[int, ...], free: tuple[int, int | None] | None) -> Any:
    """An ONNX model of a module for an input of `shape`; axis 1 may have any length within `free`, if that is given."""
    axes = ({1: torch.export.Dim("free", min=free[0], max=free[1])},) if free else None
    with _quiet():
        program: Any = torch.onnx.export(
            module.eval(),
            (torch.zeros(shape),),
            input_names=["x"],
            output_names=["y"],
            dynamic_shapes=axes,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
        )
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop the warnings that torch's exporter has for its own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
