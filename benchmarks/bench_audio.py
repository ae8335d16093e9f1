"""Seconds of audio handled per second of one processor: soft mask, leakage subtraction, log-mel, a whole clip.

A ten-second clip of two microphones at 16 kHz. "of the FFTs alone" is the time of the transforms that the work cannot
do without (scipy.fft, float64, forward for both microphones and back for one), divided by ours.
"""

from collections.abc import Callable

import numpy as np
from scipy import fft

from measure import interleaved_seconds, report
from nearfar.audio import Clip
from nearfar.detector.default import features
from nearfar.embedding.vectors import embed
from nearfar.encoders import load
from nearfar.enhance import leakage_subtract, soft_mask
from nearfar.support.threads import single_threaded_blas

SECONDS, RATE = 10, 16_000


def transforms(n_fft: int, hop: int) -> Callable[[], object]:
    frames = np.random.default_rng(0).normal(size=(SECONDS * RATE // hop + 1, n_fft))
    spectrum = fft.rfft(frames)
    return lambda: (fft.rfft(frames), fft.rfft(frames), fft.irfft(spectrum))


def main() -> None:
    rng = np.random.default_rng(0)
    near, far = rng.normal(size=(2, SECONDS * RATE)).astype(np.float32) * 0.1
    clip = Clip(near, far, RATE)
    encoder = load("logmel")
    recipes = list(features([clip] * 4)[0].values())
    encoders = {recipe.encoder: load(recipe.encoder) for recipe in recipes}
    works: list[tuple[str, Callable[[], object], Callable[[], object] | None]] = [
        ("soft mask (1024, hop 256)", lambda: soft_mask(near, far, alpha=0.5, floor=0.7), transforms(1024, 256)),
        ("leakage subtraction, w1_1024", lambda: leakage_subtract(near, far), transforms(1024, 512)),
        (
            "weighted, w1w_16384",
            lambda: leakage_subtract(near, far, n_fft=16384, weighted=True),
            transforms(16384, 4096),
        ),
        ("log-mel", lambda: encoder.frames([near]), None),
        ("the default, a clip to its vectors", lambda: embed(clip, recipes, encoders), None),
    ]
    rows = []
    with single_threaded_blas():
        for name, work, limit in works:
            seconds, *least = interleaved_seconds(work, *([limit] if limit else []), runs=15)
            share = f"{least[0] / seconds:.2f}" if least else ""
            rows.append([name, f"{1e3 * seconds:.1f}", f"{SECONDS / seconds:,.0f}", share])
    report("audio", ["work", "ms a clip", "audio seconds per second", "of the FFTs alone"], rows)


if __name__ == "__main__":
    main()
