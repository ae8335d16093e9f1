"""A linear layer as the networks use it, with the GELU that may follow it.

    y = x W^T + b,   or   gelu(x W^T + b)

On a CPU it is one call of oneDNN, the library torch has for convolutions: no pass over memory for the bias or the GELU,
and closer to the processor's peak than the BLAS behind `torch.nn.Linear` (measured: benchmarks/bench_encoders.py).
The exporter, a GPU and `torch.backends.mkldnn.flags(enabled=False)` get the plain operations.
A layer whose weights are bfloat16 computes in bfloat16 and gives back what it was given; sums are float32 inside.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear


class Linear(nn.Linear):
    """A linear layer; see the module."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, gelu: bool = False) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:  # (..., inputs) -> (..., outputs)
        own = x.to(self.weight.dtype)
        if _by_onednn(own):
            after = "gelu" if self.gelu else "none"
            y: Tensor = torch.ops.mkldnn._linear_pointwise(own, self.weight, self.bias, after, [], "none")
        else:
            y = linear(own, self.weight, self.bias)
            y = gelu(y) if self.gelu else y
        return y.to(x.dtype)


def _by_onednn(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and bool(torch.backends.mkldnn.enabled)
        and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]  # in this build of torch
        and not torch.compiler.is_compiling()
    )
