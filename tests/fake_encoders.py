"""Random weights in the form of a published file, small enough to make anew: CED-tiny at full size, 22 MB.

Statistics are far from their initial values, so that every tensor matters and two clips stay apart.
"""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

WIDTH, DEPTH, BANDS = 192, 12, 64


def write_ced_tiny(folder: str | Path, seed: int = 0) -> Path:
    """`folder`/ced-tiny/model.safetensors with the keys, shapes and order of the one on Hugging Face."""
    path = Path(folder) / "ced-tiny" / "model.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(ced_tiny(seed), path, metadata={"format": "pt"})
    return path


def ced_tiny(seed: int = 0) -> dict[str, np.ndarray]:
    """The tensors of such a file."""
    rng = np.random.default_rng(seed)
    tensors = {
        "encoder.time_pos_embed": rng.uniform(-0.5, 0.5, (1, WIDTH, 1, 63)),
        "encoder.freq_pos_embed": rng.uniform(-0.5, 0.5, (1, WIDTH, 4, 1)),
        "encoder.init_bn.weight": rng.uniform(0.8, 1.2, BANDS),
        "encoder.init_bn.bias": rng.uniform(-0.05, 0.05, BANDS),
        "encoder.init_bn.running_mean": rng.uniform(-10, 10, BANDS),
        "encoder.init_bn.running_var": rng.uniform(50, 100, BANDS),
        "encoder.init_bn.num_batches_tracked": np.array(1000),
        **_layer(rng, "encoder.patch_embed.proj", WIDTH, 1, 16, 16),
    }
    for i in range(DEPTH):
        block = f"encoder.blocks.{i}"
        tensors |= _norm(rng, f"{block}.norm1")
        tensors |= _layer(rng, f"{block}.attn.qkv", 3 * WIDTH, WIDTH)
        tensors |= _layer(rng, f"{block}.attn.proj", WIDTH, WIDTH)
        tensors |= _norm(rng, f"{block}.norm2")
        tensors |= _layer(rng, f"{block}.mlp.fc1", 4 * WIDTH, WIDTH)
        tensors |= _layer(rng, f"{block}.mlp.fc2", WIDTH, 4 * WIDTH)
    tensors |= _norm(rng, "encoder.norm")
    tensors |= _norm(rng, "outputlayer.0")  # the classifier, which nobody uses
    tensors |= _layer(rng, "outputlayer.1", 527, WIDTH)
    return {key: value if value.dtype == np.int64 else value.astype(np.float32) for key, value in tensors.items()}


def _layer(rng: np.random.Generator, name: str, *shape: int) -> dict[str, np.ndarray]:
    half = (3 / np.prod(shape[1:])) ** 0.5  # a standard deviation of 1 / sqrt(inputs)
    return {f"{name}.weight": rng.uniform(-half, half, shape), f"{name}.bias": rng.uniform(-0.05, 0.05, shape[0])}


def _norm(rng: np.random.Generator, name: str) -> dict[str, np.ndarray]:
    return {f"{name}.weight": rng.uniform(0.8, 1.2, WIDTH), f"{name}.bias": rng.uniform(-0.05, 0.05, WIDTH)}
