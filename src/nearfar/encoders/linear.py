"""A linear layer as the networks use it, with the GELU that may follow it.

    y = x W^T + b,   or   gelu(x W^T + b)

On a CPU it is one call of oneDNN, torch's own library for the convolutions: no pass over memory for the bias or the
GELU, and closer to the processor's peak than the BLAS behind `torch.nn.Linear` (measured: benchmarks/bench_encoders.py).
The exporter, a GPU and `torch.backends.mkldnn.flags(enabled=False)` get the plain operations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear
from torch.utils.flop_counter import register_flop_formula


class Linear(nn.Linear):
    """A linear layer; see the module."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, gelu: bool = False) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:  # (..., inputs) -> (..., outputs)
        if _by_onednn(x):
            after = "gelu" if self.gelu else "none"
            y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, after, [], "none")
            return y
        y = linear(x, self.weight, self.bias)
        return gelu(y) if self.gelu else y


def _by_onednn(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and not torch.compiler.is_compiling()
    )


if torch.backends.mkldnn.is_available():  # so that torch's counter of operations knows ours

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)  # type: ignore[untyped-decorator]
    def _operations(x: torch.Size, weight: torch.Size, *_: object, **__: object) -> int:
        return 2 * x.numel() * weight[0]
