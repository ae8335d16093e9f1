"""Brute-force oracles: the report's equations and the documented edge rules, in float64, one clip at a time.

Written from the equations and the documentation, sharing no code with `nearfar`. Slow on purpose.
"""

from __future__ import annotations

import numpy as np

# --- frames, pooling, views (report 2.3, 2.5, 2.6) -------------------------------------------------------------------


def suppress(x, low=None, spike=None):
    out = np.array(x, np.float64)
    for index, value in np.ndenumerate(np.asarray(x, np.float64)):
        if spike is not None and value > spike:
            out[index] = np.tanh(value)
        if low is not None and value < low:
            out[index] = 0.0
    return out


def gem(x, p):  # eq. 14, (T, D)
    x = np.maximum(np.asarray(x, np.longdouble), 0)
    return np.asarray(np.mean(x**p, axis=0) ** (1 / np.longdouble(p)), np.float64)


def rdp_weights(x, alpha, eps=1e-12):  # eq. 15
    x = np.asarray(x, np.float64)
    mean = sum(x) / len(x)
    d = np.array([np.sqrt(((row - mean) ** 2).sum()) for row in x])
    w = (1 + d / (d.max() + eps)) ** alpha
    return w / w.sum()


def rdp(x, alpha):
    return sum(w * row for w, row in zip(rdp_weights(x, alpha), np.asarray(x, np.float64), strict=True))


def rdp_gem(x, alpha, p):  # eq. 16
    w = rdp_weights(x, alpha)
    powers = [wt * np.maximum(np.asarray(row, np.longdouble), 0) ** p for wt, row in zip(w, x, strict=True)]
    return np.asarray(sum(powers) ** (1 / np.longdouble(p)), np.float64)


def decibels(power):
    return 10 * np.log10(np.maximum(power, 1e-13))


def quiet(x):  # (T, D) dB -> (D,) dB
    return 10 * np.log10(np.quantile(10 ** (np.asarray(x, np.float64) / 10), 0.25, axis=0))


def power(x):  # (T, D) dB -> (D,) dB
    return 10 * np.log10(np.mean(10 ** (np.asarray(x, np.float64) / 10), axis=0))


def burst(x):  # (T, D) dB -> (ceil(D / 4),) dB
    p = 10 ** (np.asarray(x, np.float64) / 10)
    edge = min(8, int(np.ceil((len(p) - 1) / 8)))
    p = p[edge : len(p) - edge] if len(p) > 2 * edge else p  # a clip of two frames keeps both
    p = p / p.mean(axis=0)
    groups = [decibels(p[:, at : at + 4].mean(axis=1)) for at in range(0, p.shape[1], 4)]
    return np.array([g.max() - g.mean() for g in groups])


def l2(v):
    """Rows (..., D) at length 1; zero stays zero."""
    v = np.asarray(v, np.float64)
    v = v / np.maximum(np.abs(v).max(axis=-1, keepdims=True), 1e-300)
    length = np.sqrt((v**2).sum(axis=-1, keepdims=True))
    return v / np.where(length > 0, length, 1)


def view(name, near, far):  # eq. 2-5, (D,)
    near, far = l2(near), l2(far)
    if name == "near_only":
        return near
    if name == "far_only":
        return far
    if name == "residual_0.5":
        return l2(near - 0.5 * far)
    if name in ("n_0.5f", "n_f"):
        return l2(np.r_[near, {"n_0.5f": 0.5, "n_f": 1.0}[name] * far])
    gamma = {"absdif_1": 1.0, "absdif_0.5": 0.5}[name]
    return l2(np.r_[near, far, gamma * l2(np.abs(near - far))])


# --- enhancement (report eq. 6-11) -----------------------------------------------------------------------------------


def hann(n):
    return np.array([0.5 - 0.5 * np.cos(2 * np.pi * i / n) for i in range(n)])


def stft(x, n_fft, hop):  # (N,) -> (bins, frames), centred, mirrored edges, zeros behind the last whole hop
    half = n_fft // 2
    x = np.pad(np.asarray(x, np.float64), half, mode="reflect")
    count = 1 + int(np.ceil((len(x) - n_fft) / hop))
    x = np.concatenate([x, np.zeros(n_fft + hop * (count - 1) - len(x))])
    return np.stack([np.fft.rfft(x[t * hop : t * hop + n_fft] * hann(n_fft)) for t in range(count)], axis=1)


def istft(spectrum, n_fft, hop, length):
    count, w = spectrum.shape[1], hann(n_fft)
    total, norm = np.zeros(n_fft + hop * (count - 1)), np.zeros(n_fft + hop * (count - 1))
    for t in range(count):
        total[t * hop : t * hop + n_fft] += np.fft.irfft(spectrum[:, t], n_fft) * w
        norm[t * hop : t * hop + n_fft] += w * w
    half = n_fft // 2
    return total[half : half + length] / norm[half : half + length]


def transfer(n, f, weights=None):  # eq. 6
    w = np.ones(n.shape) if weights is None else weights
    power = (w * np.abs(f) ** 2).sum(axis=1)
    return (w * n * np.conj(f)).sum(axis=1) / (power + 1e-10 * power.mean() + 1e-300)


def soft_mask(near, far, alpha, floor, n_fft=1024, hop=256):  # eq. 6-11
    n, f = stft(near, n_fft, hop), stft(far, n_fft, hop)
    p = transfer(n, f)[:, None] * f
    power = np.abs(n) ** 2
    r = np.abs(p) ** 2 / (power + 1e-10 * power.mean() + 1e-300)
    m = np.clip(1 - alpha * r / (1 + r), floor, 1.0)
    return istft(m * n, n_fft, hop, len(near))


def leakage_subtract(near, far, n_fft, hop, weighted):
    n, f = stft(near, n_fft, hop), stft(far, n_fft, hop)
    rest = n - transfer(n, f)[:, None] * f
    if weighted:
        power = np.abs(rest) ** 2
        r = np.stack([power[max(b - 4, 0) : b + 5].mean(axis=0) for b in range(len(power))])
        w = 1 / (r + 1e-3 * r.mean(axis=1, keepdims=True))
        w *= r.mean(axis=1, keepdims=True)  # a factor per bin, so that the eps of eq. 6 keeps its size
        rest = n - transfer(n, f, w)[:, None] * f
    limit = 2 * np.abs(near).max()
    return np.clip(istft(rest, n_fft, hop, len(near)), -limit, limit)


# --- back ends (report eq. 1) ----------------------------------------------------------------------------------------

RHO_FLOOR = 1e-6
FEW = 3


def distances(q, z, metric):  # (D,), (N, D) -> (N,)
    if metric == "cosine":
        q, z = l2(q), l2(z)
    difference = np.asarray(z, np.float64) - np.asarray(q, np.float64)
    squared = (difference**2).sum(axis=1)
    if metric == "cosine":  # cos = 0 to a zero vector, which is a copy of another one
        squared = np.where(z.any(axis=1) != q.any(), 2.0, squared)
    return squared / 2 if metric == "cosine" else np.sqrt(squared)


def knn(q, z, metric, k):  # eq. 1
    return np.sort(distances(q, z, metric))[:k].mean()


def densities(z, metric, density_k, agg="mean", fallback=1.0):
    """Distance of each member to its nearest others, the member itself left out by index; not floored."""
    if len(z) == 1:
        return np.array([fallback])
    out = []
    for i in range(len(z)):
        d = np.sort(distances(z[i], z[np.arange(len(z)) != i], metric))
        d = d[: cluster_exit(d[:64]) if density_k == "auto" else density_k]
        out.append(d.sum() if agg == "sum" else d.mean())
    return np.array(out)


def cluster_exit(d):
    """arXiv 2602.18777: the number of ascending distances d up to the first jump."""
    if len(d) <= 2:
        return len(d)
    r = [d[k] / d[k + 1] if d[k + 1] > 0 else 1.0 for k in range(len(d) - 1)]
    smooth = [(r[k] + r[k + 1]) / 2 for k in range(len(r) - 1)]
    below = [k for k, value in enumerate(smooth) if value < np.quantile(smooth, 0.04)]
    return max(below[0] + 1 if below else len(d) - 2, 2)


def floored(rho):
    return np.maximum(rho, RHO_FLOOR * rho.mean()) if rho.mean() > 0 else np.ones(len(rho))


def ldn(
    q,
    z,
    metric,
    *,
    k=1,
    density_k=16,
    agg="mean",
    selection="normalized",
    form="ratio",
    exponent=1.0,
    fallback=1.0,
):
    d, rho = distances(q, z, metric), floored(densities(z, metric, density_k, agg, fallback))
    if selection == "raw":
        nearest = np.argsort(d, kind="stable")[:k]
        d, rho = d[nearest].mean(), rho[nearest].mean()
        return d / rho**exponent if form == "ratio" else d - exponent * rho
    calibrated = d / rho**exponent if form == "ratio" else d - exponent * rho
    return np.sort(calibrated)[:k].mean()


def varmin_alpha(z, metric, density_k):
    if len(z) < 2:
        return 0.0
    rho = densities(z, metric, density_k)
    u, v = [], []
    for i in range(len(z)):
        d = distances(z[i], z, metric)
        d[i] = np.inf
        u.append(d.min())
        v.append(rho[np.argmin(d)])
    u, v = np.array(u), np.array(v)
    return np.mean((u - u.mean()) * (v - v.mean())) / v.var() if v.var() > 1e-12 else 0.0


def domain_statistics(z, metric, k):
    """mu and sigma of the members' distances to the others; None where too few members make it meaningless."""
    if len(z) < 2:
        return None, None
    own = np.array([np.sort(np.delete(distances(z[i], z, metric), i))[:k].mean() for i in range(len(z))])
    return own.mean(), own.std() if len(z) >= FEW else None


def domain_z(q, z, is_target, metric, *, k=1, z_sigma="target"):  # GenRep 2025 eq. 3
    banks = [z[~is_target], z[is_target]]
    present = [d for d in (0, 1) if len(banks[d])]
    mu, sigma = zip(*(domain_statistics(bank, metric, k) for bank in banks), strict=True)

    def first(*values):
        return next(v for v in values if v is not None)

    mu = [first(mu[d], mu[1 - d], 0.0) for d in (0, 1)]
    sigma = [first(sigma[d], sigma[1 - d], 1.0) for d in (0, 1)]
    if len(present) == 2 and z_sigma == "target":
        sigma = [sigma[1], sigma[1]]
    scores = []
    for d in present:
        least = 1e-6 * abs(mu[d]) or 1e-6
        scores.append((knn(q, banks[d], metric, k) - mu[d]) / max(sigma[d], least))
    return min(scores)


def dual(q, z, is_target, metric, method, *, weight=0.5, source_k=16, target_k=9, **settings):  # eq. 5 and "dbldn"
    banks, ks = [z[~is_target], z[is_target]], (source_k, target_k)
    agg = settings.get("agg", "mean")
    scores = []
    for d in (0, 1):
        if not len(banks[d]):
            continue
        other = banks[1 - d]
        fallback = densities(other, metric, ks[1 - d], agg).mean() if len(other) > 1 else 1.0
        scores.append(ldn(q, banks[d], metric, density_k=ks[d], fallback=fallback, **settings))
    if len(scores) == 1 or method == "dldn":
        return min(scores)
    return weight * scores[0] + (1 - weight) * scores[1]


def ledoit_wolf_shrinkage(x):
    """Ledoit and Wolf 2004, lemma 3.2-3.4, by sums over clips."""
    x = np.asarray(x, np.float64) - np.mean(x, axis=0, dtype=np.float64)
    n, d = x.shape
    s = x.T @ x / n
    mu = np.trace(s) / d
    delta = ((s - mu * np.eye(d)) ** 2).sum() / d
    beta = sum(((np.outer(row, row) - s) ** 2).sum() for row in x) / n**2 / d
    return 0.0 if delta == 0 else min(beta, delta) / delta


def gaussian(x, shrinkage="ledoit_wolf", standardize=False):
    """mean, scale, A of the documented Gaussian."""
    x = np.asarray(x, np.float64)
    mean, scale = x.mean(axis=0), np.ones(x.shape[1])
    if (np.abs(x - mean) <= 1e-12 * np.abs(x).max(axis=0)).all():  # all clips coincide
        return mean, scale, np.eye(x.shape[1])
    if standardize:
        deviation = x.std(axis=0)
        least = 0.1 * np.median(deviation)
        if least == 0:
            least = deviation.max() if deviation.any() else 1.0
        scale = np.maximum(deviation, least)
    y = (x - mean) / scale
    s = y.T @ y / len(y)
    mu = np.trace(s) / x.shape[1]
    rho = ledoit_wolf_shrinkage(y) if shrinkage == "ledoit_wolf" else shrinkage
    return mean, scale, (1 - rho) * s + max(rho, 1e-6) * mu * np.eye(x.shape[1])


def mahalanobis(q, x, shrinkage="ledoit_wolf", standardize=False):
    mean, scale, a = gaussian(x, shrinkage, standardize)
    y = (np.asarray(q, np.float64) - mean) / scale
    return np.sqrt(y @ np.linalg.solve(a, y))


def whiten(x, z):
    mean, _, a = gaussian(z)
    values, vectors = np.linalg.eigh(a)
    y = np.atleast_2d(np.asarray(x, np.float64) - mean)
    y[np.abs(y) <= 1e-12 * np.abs(z).max(axis=0)] = 0  # rounding of the mean has no direction
    return y @ (vectors / np.sqrt(values)) @ vectors.T


def pca(q, z, components=0.95):
    """Distance from the mean outside the principal axes, by eigenvectors of the covariance."""
    mean = z.mean(axis=0)
    x = z - mean
    x[np.abs(x) <= 1e-12 * np.abs(z).max(axis=0)] = 0
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    values, vectors = values[::-1], vectors[:, ::-1]
    rank = int((values > 1e-13 * max(values[0], 1e-300)).sum())
    m = components
    if isinstance(components, float):
        m = 0
        while m < rank and values[:m].sum() < components * values.sum() * (1 - 1e-9):
            m += 1
        m = max(m, 1)
    m = min(m, rank, z.shape[1] - 1)
    y = q - mean
    return np.linalg.norm(y - vectors[:, :m] @ (vectors[:, :m].T @ y))


def zmin(q, z, **s):  # arXiv 2606.19269
    scores = []
    for method in ("raw", "ldn", "mahalanobis", "pca"):
        own = leave_one_out(z, None, **s, method=method) if len(z) >= FEW else np.zeros(0)
        mu, sigma = (own.mean(), own.std()) if len(own) else (0.0, 1.0)
        scores.append((score(q, z, None, **s, method=method) - mu) / max(sigma, 1e-6 * abs(mu) or 1e-6))
    return min(scores)


def kmeans(x, clusters):
    if len(x) <= clusters:
        return x
    centres = [min(x, key=lambda v: ((v - x.mean(axis=0)) ** 2).sum())]
    while len(centres) < clusters:
        centres.append(max(x, key=lambda v: min(((v - c) ** 2).sum() for c in centres)))
    for _ in range(100):
        of = np.array([np.argmin([((v - c) ** 2).sum() for c in centres]) for v in x])
        centres = [x[of == c].mean(axis=0) if (of == c).any() else centres[c] for c in range(clusters)]
    return np.array(centres)


def smote(x, count, seed):
    rng = np.random.default_rng(seed)
    if len(x) < 2 or count < 1:
        return x[:0]
    x = np.array(sorted(x.tolist()))
    order = [
        sorted((j for j in range(len(x)) if j != i), key=lambda j: ((x[i] - x[j]) ** 2).sum())[:5]
        for i in range(len(x))
    ]
    row, column, share = rng.integers(len(x), size=count), rng.integers(len(order[0]), size=count), rng.random(count)
    return np.array([x[i] + u * (x[order[i][c]] - x[i]) for i, c, u in zip(row, column, share, strict=True)])


def memmixup(source, target):
    rows = [0.9 * t + 0.1 * s for t in target for s in sorted(source, key=lambda s: ((s - t) ** 2).sum())[:990]]
    return np.array(rows).reshape(-1, target.shape[1])


def altered(q, z, is_target, metric, k, method, *, clusters=16, seed=0):
    x = l2(z) if metric == "cosine" else z
    source, target = x[~is_target], x[is_target]
    if method == "kmeans":
        source = kmeans(source, clusters)
    elif method == "smote":
        target = np.r_[target, smote(target, len(source) - len(target), seed)]
    else:
        target = np.r_[target, memmixup(source, target)]
    return knn(q, np.r_[source, target], metric, k)


def score(q, z, is_target=None, *, method="raw", metric="cosine", k=1, whitened=False, **s):
    """Score of one query (D,) by any method; settings as `nearfar.backend.fit` names them."""
    q, z = np.asarray(q, np.float64), np.asarray(z, np.float64)
    is_target = np.zeros(len(z), bool) if is_target is None else np.asarray(is_target, bool)
    if whitened and method != "as_is":
        q, z = whiten(q, z)[0], whiten(z, z)
    settings = {"agg": s.get("density_agg", "mean"), "selection": s.get("neighbour_selection", "normalized")}
    settings |= {"form": s.get("form", "ratio"), "exponent": s.get("exponent", 1.0), "k": k}
    if method == "raw":
        return knn(q, z, metric, k)
    if method == "ldn":
        return ldn(q, z, metric, density_k=s.get("density_k") or 16, **settings)
    if method == "varmin":
        density_k = s.get("density_k") or 4
        alpha = varmin_alpha(z, metric, density_k)
        return ldn(q, z, metric, k=k, density_k=density_k, form="difference", exponent=alpha)
    if method == "domain_z":
        return domain_z(q, z, is_target, metric, k=k, z_sigma=s.get("z_sigma", "target"))
    if method == "as_is":
        return float(q[-1])
    if method == "pca":
        return pca(q, z, s.get("components", 0.95))
    if method == "zmin":
        return zmin(q, z, metric=metric, k=k, **s)
    if method in ("kmeans", "smote", "memmixup"):
        return altered(q, z, is_target, metric, k, method, **s)
    if method == "mahalanobis":
        shape = {"shrinkage": s.get("shrinkage", "ledoit_wolf"), "standardize": s.get("standardize", False)}
        if min(is_target.sum(), (~is_target).sum()) < FEW:
            return mahalanobis(q, z, **shape)
        return min(mahalanobis(q, z[is_target == d], **shape) for d in (False, True))
    source_k = s.get("density_k_source") or s.get("density_k") or 16
    target_k = s.get("density_k_target") or s.get("density_k") or 9
    weight = s.get("weight", 0.5)
    return dual(q, z, is_target, metric, method, weight=weight, source_k=source_k, target_k=target_k, **settings)


def leave_one_out(z, is_target=None, **s):
    """Every clip's score with the back end made of the others, by doing exactly that."""
    is_target = np.zeros(len(z), bool) if is_target is None else np.asarray(is_target, bool)
    keep = ~np.eye(len(z), dtype=bool)
    return np.array([score(z[i], z[keep[i]], is_target[keep[i]], **s) for i in range(len(z))])


# --- fusion and metrics (report eq. 17-19) ---------------------------------------------------------------------------


def fuse(parts, weights):
    total = 0.0
    for (train, scores), weight in zip(parts, weights, strict=True):
        train, scores = np.asarray(train, np.float64), np.asarray(scores, np.float64)
        total = total + weight * (scores - train.mean()) / train.std()
    return total


def auc(scores, is_anomaly):
    normal, anomalous = scores[~is_anomaly], scores[is_anomaly]
    wins = [1.0 if a > n else 0.5 if a == n else 0.0 for a in anomalous for n in normal]
    return sum(wins) / len(wins)
