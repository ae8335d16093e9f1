"""Two torch modules as one ONNX file, with a loop over the pieces of what the first one makes.

    waves (1, N) -> front -> rows (1, n, ...) -> for each piece: body -> grid (1, t, F, D) -> all of them: (1, T, F, D)

torch exports each module with one axis of free length; how many pieces there are and where they end is counted in the
file itself, in whole numbers.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

OPSET, IR_VERSION = 18, 10
OPERATORS = {"+": "Add", "-": "Sub", "*": "Mul", "/": "Div", "%": "Mod", "max": "Max"}
ENDLESS = 1 << 40  # the size of a piece that is all there is
EXAMPLE = 8_000  # samples


@dataclass(frozen=True)
class Plan:
    """How front and body become one file; piece i is rows i * `stride` to i * `stride` + `size`, none from `end` on.

    `sums` are lines "name = a + b" in whole numbers, from n, that define `end`, `count` of pieces and `rows`, the most
    that T may be. `piece` is the shape of an example; its axis 1 is free unless it is all of `size`.
    """

    front: nn.Module
    body: nn.Module
    piece: tuple[int, ...]
    size: int
    stride: int
    sums: tuple[str, ...]
    shortest: int


@dataclass
class Parts:
    """Makes nodes, and collects the whole numbers that they use."""

    numbers: dict[str, Any] = field(default_factory=dict)

    def node(self, kind: str, *inputs: str | int, to: str, **attributes: Any) -> Any:
        """A node; a whole number among its inputs becomes a constant."""
        from onnx import helper

        return helper.make_node(kind, [self._name(value) for value in inputs], [to], **attributes)

    def sum(self, line: str) -> Any:
        """A node from a line "name = a + b"."""
        name, _, first, sign, second = line.split()
        a, b = (int(word) if word.isdigit() else word for word in (first, second))
        return self.node(OPERATORS[sign], a, b, to=name)

    def _name(self, value: str | int) -> str:
        from onnx import TensorProto, helper

        if isinstance(value, str):
            return value
        name = f"whole/{value}"
        self.numbers[name] = helper.make_tensor(name, TensorProto.INT64, [1], [value])
        return name


def build(plan: Plan, dim: int) -> bytes:
    """The ONNX file of a plan: input "waves" (1, N), output "grid" (1, T, F, D), N and T free."""
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
        from onnx import TensorProto, compose, helper
    except ImportError:
        raise ImportError("exporting needs onnx and onnxscript: pip install 'nearfar[onnx]'") from None
    limits = None if plan.piece[1] == plan.size else (16, plan.size if plan.size < ENDLESS else None)
    example = (1, max(plan.shortest, EXAMPLE))
    front = compose.add_prefix(_exported(plan.front, example, (plan.shortest, None)), "front/")
    body = compose.add_prefix(_exported(plan.body, plan.piece, limits), "body/")
    rows, parts = front.graph.output[0].name, Parts()
    columns = body.graph.output[0].type.tensor_type.shape.dim[2].dim_value
    loop = _loop(parts, plan, body.graph, rows, [1, None, columns, dim])
    nodes = [
        parts.node("Identity", "waves", to=front.graph.input[0].name),
        *front.graph.node,
        parts.node("Shape", rows, to="n", start=1, end=2),
        *(parts.sum(line) for line in plan.sums),
        parts.node("Loop", "count", "true", "nothing", to="all", body=loop),
        parts.node("Slice", "all", 0, "rows", 1, to="grid"),
    ]
    constants = [
        helper.make_tensor("true", TensorProto.BOOL, [], [True]),
        helper.make_tensor("nothing", TensorProto.FLOAT, [1, 0, columns, dim], []),
    ]
    graph = helper.make_graph(
        nodes,
        "nearfar",
        [_tensor("waves", [1, "samples"])],
        [_tensor("grid", [1, "T", columns, dim])],
        [*front.graph.initializer, *body.graph.initializer, *constants, *parts.numbers.values()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _loop(parts: Parts, plan: Plan, body: Any, rows: str, grids: list[int | None]) -> Any:
    """The graph of one turn: piece i through the body, its grid behind the others."""
    from onnx import TensorProto, helper

    nodes = [
        parts.node("Mul", "i", plan.stride, to="start"),
        parts.node("Add", "start", plan.size, to="far"),
        parts.node("Min", "far", "end", to="stop"),
        parts.node("Slice", rows, "start", "stop", 1, to=body.input[0].name),
        *body.node,
        parts.node("Concat", "before", body.output[0].name, to="after", axis=1),
        parts.node("Identity", "go on", to="still go on"),
    ]
    before = [_tensor("i", [], TensorProto.INT64), _tensor("go on", [], TensorProto.BOOL), _tensor("before", grids)]
    after = [_tensor("still go on", [], TensorProto.BOOL), _tensor("after", grids)]
    return helper.make_graph(nodes, "piece", before, after)


def _tensor(name: str, shape: list[Any], kind: int = 1) -> Any:  # 1: float32
    from onnx import helper

    return helper.make_tensor_value_info(name, kind, shape)


def _exported(module: nn.Module, shape: tuple[int, ...], limits: tuple[int, int | None] | None) -> Any:
    """An ONNX model of a module, the input's axis 1 free within `limits`, or fixed without."""
    free = ({1: torch.export.Dim("free", min=limits[0], max=limits[1])},) if limits else None
    with _quiet():
        program: Any = torch.onnx.export(
            module.eval(),
            (torch.zeros(shape),),
            input_names=["x"],
            output_names=["y"],
            dynamic_shapes=free,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
        )
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter says to its own developers."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
