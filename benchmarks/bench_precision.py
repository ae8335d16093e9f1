"""What lower precision costs in exactness and gives in speed: CED-base on real recordings, beside float32.

"bf16" is `encoders.load(..., precision="bf16")`. "int8" is torch's dynamic quantisation of the same layers, weights
once and activations in every pass; the package does not offer it. Rank correlation is Spearman's, of nearest-neighbour
scores (k = 5, cosine, mean frame). Time is that of float32 in the same run, in turns; below 1 is faster.
Weights are reproducible numbers in the published form: trained ones have outliers that these lack.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from scipy.stats import spearmanr

from bench_encoders import GOLDEN, turns
from measure import report

NAME = "ced-base"
RECORDINGS = GOLDEN.parent / "data" / "dcase2026-form" / "bldcMotor"
TIMED = 8  # recordings
COLUMNS = ("precision", "largest", "mean", "rank correlation", "time", "processor time")
NOTES = (
    "Largest, mean: difference of grids from those of float32, over their standard deviation. Time: over that of "
    "float32.",
    "int8 is not offered: its error is several times that of bf16 on weights without outliers, and grows with the "
    "outliers of trained ones, which these do not have; it scales by the largest number of a whole batch, so that on a "
    "GPU a clip would no longer get the same numbers in any company; and torch.ao.quantization is deprecated.",
)


def main() -> None:
    sys.path.insert(0, str(GOLDEN))
    from fake_weights import fake_checkpoint
    from write_checkpoint import write_checkpoint

    from nearfar.encoders import load

    manifest = json.loads((GOLDEN / "manifests" / f"{NAME}.json").read_text())
    clips = {part: near_channels(RECORDINGS / part) for part in ("train", "test")}
    with tempfile.TemporaryDirectory() as folder:
        path = write_checkpoint(manifest, fake_checkpoint(manifest, seed=1), folder)
        exact, int8 = load(NAME, path), load(NAME, path)
        quantise(int8)
        lower = {"bf16": load(NAME, path, precision="bf16"), "int8": int8}
        rows = [[name, *beside(encoder, exact, clips)] for name, encoder in lower.items()]
    report("precision", COLUMNS, rows, (f"{len(clips['test'])} recordings, {len(clips['train'])} normals.", *NOTES))


def beside(encoder: Any, exact: Any, clips: dict[str, list[np.ndarray]]) -> list[str]:
    """Differences, rank correlation and time of an encoder beside the exact one."""
    grids, wanted = (each.grid(clips["test"]) for each in (encoder, exact))
    apart = [np.abs(a - b) / b.std() for a, b in zip(grids, wanted, strict=True)]
    agreement = spearmanr(knn_scores(encoder, clips), knn_scores(exact, clips))[0]
    some = clips["test"][:TIMED]
    _, wall, processor = turns(lambda: encoder.grid(some), 1, lambda: exact.grid(some), 1)
    means = float(np.mean([a.mean() for a in apart]))
    return [f"{max(a.max() for a in apart):.3f}", f"{means:.4f}", f"{agreement:.4f}", f"{wall:.2f}", f"{processor:.2f}"]


def quantise(encoder: Any) -> None:
    """Put torch's eight-bit layers in the place of linear ones."""
    import torch
    from torch import nn

    from nearfar.encoders.vit import Linear

    warnings.simplefilter("ignore")  # torch.ao.quantization: deprecated
    for parent in list(encoder.network.module.modules()):
        for key, layer in [(k, m) for k, m in parent.named_children() if isinstance(m, Linear)]:
            plain = nn.Linear(layer.in_features, layer.out_features)
            plain.weight, plain.bias = layer.weight, layer.bias
            stages = torch.ao.quantization.quantize_dynamic(nn.Sequential(plain), {nn.Linear}, dtype=torch.qint8)
            setattr(parent, key, stages)


def near_channels(folder: Path) -> list[np.ndarray]:
    read = (soundfile.read(path, dtype="float32", always_2d=True) for path in sorted(folder.glob("*.wav")))
    return [samples[:, 0].copy() for samples, _ in read]


def knn_scores(encoder: Any, clips: dict[str, list[np.ndarray]]) -> np.ndarray:
    """Mean cosine distance of each test clip's mean frame from its five nearest of the training clips."""
    z = {part: np.stack([frames.mean(0) for frames in encoder.frames(waves)]) for part, waves in clips.items()}
    unit = {part: rows / np.linalg.norm(rows, axis=1, keepdims=True) for part, rows in z.items()}
    return np.sort(1 - unit["test"] @ unit["train"].T, axis=1)[:, :5].mean(1)


if __name__ == "__main__":
    main()
