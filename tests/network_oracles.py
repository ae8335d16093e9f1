"""The networks once more, from their published tensors, in float64 numpy: slow, in the published order of tokens.

Written from the descriptions of the networks; nothing here knows how `nearfar.encoders` does it.
"""

import numpy as np
from scipy.special import erf


def layer_norm(x, p, name, eps=1e-6):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + eps) * p[f"{name}.weight"] + p[f"{name}.bias"]


def linear(x, p, name):
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def gelu(x):
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(x, p, name, heads):
    length, width = x.shape
    q, k, v = (a.reshape(length, heads, -1).swapaxes(0, 1) for a in np.split(linear(x, p, f"{name}.qkv"), 3, axis=1))
    weights = softmax(q @ k.swapaxes(1, 2) / np.sqrt(width // heads))
    return linear((weights @ v).swapaxes(0, 1).reshape(length, width), p, f"{name}.proj")


def perceptron(x, p, name):
    return linear(gelu(linear(x, p, f"{name}.fc1")), p, f"{name}.fc2")


def convolved(image, kernel, bias=0):
    """A convolution whose stride is its kernel: image (H, W), kernel (D, 1, h, w) -> (D, H // h, W // w)."""
    d, _, h, w = kernel.shape
    rows, columns = image.shape[0] // h, image.shape[1] // w
    out = np.empty((d, rows, columns))
    for r in range(rows):
        for c in range(columns):
            out[:, r, c] = (kernel[:, 0] * image[r * h : (r + 1) * h, c * w : (c + 1) * w]).sum((1, 2))
    return out + np.reshape(bias, (-1, 1, 1))


def eat(p, fbank, heads):
    """fbank (frames, 128) before normalisation, padded -> grid (T, F, D)."""
    image = (fbank + 4.268) / (2 * 4.569)
    patches = convolved(image, p["local_encoder.proj.weight"], p["local_encoder.proj.bias"])  # (D, T, F)
    d, rows, columns = patches.shape
    x = patches.reshape(d, -1).T + p["fixed_positional_encoder.positions"][0, : rows * columns]
    x = layer_norm(np.concatenate([p["extra_tokens"][0], x]), p, "pre_norm")
    for i in range(depth(p)):
        x = x + attention(x, p, f"blocks.{i}.attn", heads)
        r = x = layer_norm(x, p, f"blocks.{i}.norm1")
        x = layer_norm(r + perceptron(x, p, f"blocks.{i}.mlp"), p, f"blocks.{i}.norm2")
    return x[1:].reshape(rows, columns, d)


def ced(p, mel_db, heads):
    """mel_db (frames, 64) of one chunk -> grid (T, F, D); tokens run frequency by frequency. Dasheng as well."""
    stats = (p[f"init_bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    mean, var, weight, bias = stats
    image = ((mel_db - mean) / np.sqrt(var + 1e-5) * weight + bias).T  # (bands, frames)
    patches = convolved(image, p["patch_embed.proj.weight"], p["patch_embed.proj.bias"])  # (D, F, T)
    d, columns, rows = patches.shape
    x = patches + p["time_pos_embed"][0, :, :, :rows] + p["freq_pos_embed"][0]
    x = pre_norm_blocks(x.reshape(d, -1).T, p, heads)
    return x.reshape(columns, rows, d).swapaxes(0, 1)


def m2d(p, log_mel, heads):
    """log_mel (frames, 80) of one chunk, normalised and padded -> grid (T, F, D); tokens frequency by frequency."""
    patches = convolved(log_mel.T, p["patch_embed.proj.weight"], p["patch_embed.proj.bias"])  # (D, F, T)
    d, columns, rows = patches.shape
    table = p["pos_embed"][0]
    x = patches.reshape(d, -1).T + table[1:].reshape(columns, -1, d)[:, :rows].reshape(-1, d)
    x = pre_norm_blocks(np.concatenate([p["cls_token"][0] + table[:1], x]), p, heads)
    return x[1:].reshape(columns, rows, d).swapaxes(0, 1)


def pre_norm_blocks(x, p, heads):
    for i in range(depth(p)):
        x = x + attention(layer_norm(x, p, f"blocks.{i}.norm1"), p, f"blocks.{i}.attn", heads)
        x = x + perceptron(layer_norm(x, p, f"blocks.{i}.norm2"), p, f"blocks.{i}.mlp")
    return layer_norm(x, p, "norm")


def depth(p):
    return sum(key.endswith(".norm1.weight") for key in p)


def beats(p, fbank, heads, buckets, farthest, groups):
    """fbank (frames, 128), normalised -> grid (T, 8, D)."""
    patches = convolved(fbank, p["patch_embedding.weight"])  # (512, T, 8)
    small, rows, columns = patches.shape
    x = linear(layer_norm(patches.reshape(small, -1).T, p, "layer_norm", 1e-5), p, "post_extract_proj")
    x = layer_norm(x + gelu(position_convolution(x, p, groups)), p, "encoder.layer_norm", 1e-5)
    length, width = x.shape
    layers = sum(key.endswith(".fc1.weight") for key in p)
    bucket = np.array([[relative_bucket(k - q, buckets, farthest) for k in range(length)] for q in range(length)])
    bias = p["encoder.layers.0.self_attn.relative_attention_bias.weight"][bucket].transpose(2, 0, 1)
    alpha = (2 * layers) ** 0.25
    for i in range(layers):
        at = f"encoder.layers.{i}"
        q, k, v = (
            linear(x, p, f"{at}.self_attn.{part}_proj").reshape(length, heads, -1).swapaxes(0, 1) for part in "qkv"
        )
        gates = linear(q, p, f"{at}.self_attn.grep_linear").reshape(heads, length, 2, 4).sum(-1)
        a, b = np.moveaxis(1 / (1 + np.exp(-gates)), -1, 0)
        gate = a * (b * p[f"{at}.self_attn.grep_a"].reshape(heads, 1) - 1) + 2
        weights = softmax(q @ k.swapaxes(1, 2) / np.sqrt(width // heads) + gate[..., None] * bias)
        heard = linear((weights @ v).swapaxes(0, 1).reshape(length, width), p, f"{at}.self_attn.out_proj")
        x = layer_norm(alpha * x + heard, p, f"{at}.self_attn_layer_norm", 1e-5)
        x = layer_norm(alpha * x + perceptron(x, p, at), p, f"{at}.final_layer_norm", 1e-5)
    return x.reshape(rows, columns, width)


def position_convolution(x, p, groups):
    v = p["encoder.pos_conv.0.weight_v"]
    kernel = p["encoder.pos_conv.0.weight_g"] * v / np.sqrt((v**2).sum((0, 1), keepdims=True))  # (D, D / groups, K)
    d, each, size = kernel.shape
    padded = np.pad(x, ((size // 2, size // 2), (0, 0)))
    out = np.empty_like(x)
    for t in range(len(x)):
        seen = padded[t : t + size].T.reshape(groups, each, size)  # (groups, D / groups, K)
        out[t] = np.einsum("goik,gik->go", kernel.reshape(groups, d // groups, each, size), seen).ravel()
    return out + p["encoder.pos_conv.0.bias"]


def relative_bucket(distance, buckets, farthest):
    half = buckets // 2
    exact, far = half // 2, abs(distance)
    if far >= exact:
        far = min(half - 1, exact + int(np.float32(np.log(far / exact) / np.log(farthest / exact) * (half - exact))))
    return far + half * (distance > 0)


def openl3(p, decibels, last_pool):
    """decibels (frames, bands) of one window -> embedding (dim,), channels last."""
    x = batch_norm(decibels.T[None], p, 1)
    for i in range(1, 8):
        x = np.maximum(batch_norm(same_convolution(x, p, f"conv2d_{i}"), p, i + 1), 0)
        if i in (2, 4, 6):
            x = max_pool(x, 2, 2)
    return max_pool(same_convolution(x, p, "audio_embedding_layer"), *last_pool).transpose(1, 2, 0).ravel()


def batch_norm(x, p, i):
    mean, var, weight, bias = (
        p[f"batch_normalization_{i}.{part}"][:, None, None]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / np.sqrt(var + 1e-3) * weight + bias


def same_convolution(x, p, name):
    kernel, (_, high, wide) = p[f"{name}.weight"], x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    out = sum(
        np.tensordot(kernel[:, :, r, c], padded[:, r : r + high, c : c + wide], 1) for r in range(3) for c in range(3)
    )
    return out + p[f"{name}.bias"][:, None, None]


def max_pool(x, high, wide):
    channels, rows, columns = x.shape[0], x.shape[1] // high, x.shape[2] // wide
    cut = x[:, : rows * high, : columns * wide].reshape(channels, rows, high, columns, wide)
    return cut.max((2, 4))
