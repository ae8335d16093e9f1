"""Any audio encoder that Hugging Face's `AutoModel` loads, from a folder as `save_pretrained` writes it.

    FOLDER/config.json, preprocessor_config.json, *.safetensors

The sampling rate is the feature extractor's, a frame is a token of the last block or of the block `layer`, and F = 1.
Of a model with a decoder the encoder alone is used, and an extractor that pads (Whisper to 30 s) makes tokens of the
padding too. Nothing is downloaded, no code of the folder runs, and weights are read from safetensors only. A model
whose class is not in transformers itself cannot be loaded this way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nearfar.encoders.table import Frames, as_list, device_class
from nearfar.support.check import Array, finite
from nearfar.support.files import sha256_of

NEEDED = ("config.json", "preprocessor_config.json")


class HuggingFace(Frames):
    """A model of transformers as an encoder."""

    batches = False
    licence = "of the model"

    def __init__(self, folder: Path, model: Any, extractor: Any, device: str) -> None:
        self.folder, self.extractor, self.device = folder, extractor, device
        self.model = (model.get_encoder() if model.config.is_encoder_decoder else model).eval().to(device)
        self.sample_rate, self.dim = int(extractor.sampling_rate), int(model.config.hidden_size)
        self.depth = int(model.config.num_hidden_layers)

    @property
    def weights_hash(self) -> str:
        """SHA-256 over the files of the folder; ":cuda" follows on a GPU."""
        kind = device_class(self.device)
        return source_hash(self.folder) + ("" if kind == "cpu" else f":{kind}")

    def grid(self, waves: Any, layer: int | Sequence[int | None] | None = None) -> Any:
        """(B, N) -> (B, T, 1, D), a list of 1-D arrays -> a list of (T, 1, D), each wave alone.

        `layer` chooses a block, from 1 to the depth; several give a list of results.
        """
        each, stacked = as_list(waves)
        layers = layer if isinstance(layer, Sequence) else [layer]
        for number in layers:
            if number is not None and not 1 <= number <= self.depth:
                raise ValueError(f"{self.folder} has layers 1 to {self.depth}, so layer={number!r} does not exist")
        grids = [self._one(wave, layers) for wave in each]
        out: list[Any] = [list(of_layer) for of_layer in zip(*grids, strict=True)] or [[] for _ in layers]
        out = [np.stack(found) if stacked and found else found for found in out]
        return out if isinstance(layer, Sequence) else out[0]

    def _one(self, wave: Array, layers: Sequence[int | None]) -> list[Array]:
        import torch

        given = self.extractor(wave.astype(np.float32), sampling_rate=self.sample_rate, return_tensors="pt")
        with torch.inference_mode():
            made = self.model(**given.to(self.device), output_hidden_states=True)
        chosen = [made.last_hidden_state if n is None else made.hidden_states[n] for n in layers]
        return [finite(f"the output of {self.folder}", x[0].float().cpu().numpy())[:, None] for x in chosen]


def load(name: str, weights: Any, device: str = "cpu") -> HuggingFace:
    """The model in the folder `weights`. ValueError for a folder that holds no such model."""
    folder = _folder(weights)
    try:
        from transformers import AutoFeatureExtractor, AutoModel
    except ImportError:
        raise ImportError("encoder 'huggingface' needs transformers: pip install \"nearfar[huggingface]\"") from None
    from nearfar.encoders.frozen import torch_device

    torch_device(device)  # ValueError if it is not here
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        extractor = AutoFeatureExtractor.from_pretrained(folder, **local)
        model = AutoModel.from_pretrained(folder, use_safetensors=True, **local)
        return HuggingFace(folder, model, extractor, device)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        why = str(error).strip().split("\n")[0]
        raise ValueError(f"{folder} is no audio encoder that transformers can load by itself: {why}") from None


def source_hash(folder: str | Path) -> str:
    """SHA-256 of the hashes of the configuration, the preprocessor's and the weights."""
    path = _folder(folder)
    files = [*(path / name for name in NEEDED), *sorted(path.glob("*.safetensors"))]
    return hashlib.sha256(" ".join(sha256_of(file) for file in files).encode()).hexdigest()


def _folder(weights: Any) -> Path:
    """The folder of the model. ValueError or FileNotFoundError if there is none."""
    if weights is None:
        raise ValueError("encoder 'huggingface' is a model of yours: give its folder, --weights FOLDER")
    folder = Path(weights)
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing or not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{folder} is no model folder of Hugging Face: it lacks {' and '.join(missing) or '*.safetensors'}"
        )
    return folder
