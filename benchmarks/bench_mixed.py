"""Recall of mixed precision at 3 bits, compared with equal bits for all dimensions, with many centroids and with one.

    QVEC_DATA=/path/to/sets python benchmarks/bench_mixed.py [set ...]

For each code: bytes per vector with factors; recall@10 among the best c by code; vectors encoded and codes scored per
second on one core. Quantizers learn from the base only. The last line is a lower bound of the error of any code of 3
bits, relative to 3 bits for each dimension, for normal values with the covariance of the residuals: reverse
water-filling (Cover and Thomas, Elements of Information Theory, theorem 10.3.3).
"""

from __future__ import annotations

import sys
import time

import numpy as np
import numpy.typing as npt
import sets

from qvec.codes.base import coded_sample
from qvec.codes.centroids import Centroids
from qvec.codes.configs import CodeConfig, Mixed, RaBitQ
from qvec.codes.registry import Quantizer, train
from qvec.common.types import CentroidCount
from qvec.datasets import Workload
from qvec.quality.recall import make_problem, recalls_by_code

N_QUERIES = 500
DEPTHS = (10, 15, 20, 30, 50, 100, 200, 400)
TRAINED = 20_000
EVEN_STEPS = {3: 0.03744, 4: 0.01154, 5: 0.003495, 6: 0.001041}  # error of a normal value by bits: Max 1960, table II
CENTROIDS: dict[str, CentroidCount] = {"centroids": "auto", "one center": 1}
CONFIGS: dict[str, CodeConfig] = {
    f"{name}, {how}": config
    for how, centroids in CENTROIDS.items()
    for name, config in {
        **{f"rabitq{bits}": RaBitQ(bits, centroids=centroids) for bits in (2, 3, 4)},
        "mixed 3": Mixed(bits=3, centroids=centroids),
    }.items()
}


def score_rate(quantizer: Quantizer, codes: npt.NDArray[np.uint8], data: Workload) -> float:
    """Codes scored a second, the best of five queries."""
    query = quantizer.prepare(data.queries[:1])
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        quantizer.codec.score(query, codes)
        seconds.append(time.perf_counter() - start)
    return len(codes) / min(seconds)


def report(data: Workload) -> None:
    """Print a row for each code, and what mixed precision gains at 3 bits."""
    n, dim = data.base.shape
    print(f"\n{data.name}: {n} x {dim}, {data.metric}, {N_QUERIES} queries")
    print("| code | bytes |" + "".join(f" c={c} |" for c in DEPTHS) + " encode/s | score/s |")
    print("|---|---|" + "---|" * (len(DEPTHS) + 2))
    none = np.full(N_QUERIES, -1)
    task = make_problem(data.base, data.queries[:N_QUERIES], none, np.zeros(0, np.int64), 10, data.metric)
    at_ten = {}
    for name, config in CONFIGS.items():
        quantizer = train(data.base[:TRAINED], data.metric, config)
        start = time.perf_counter()
        codes = quantizer.encode(data.base)
        rate = len(codes) / (time.perf_counter() - start)
        recalls = {c: found.mean() for c, found in recalls_by_code(quantizer, codes, task, DEPTHS).items()}
        at_ten[name] = recalls[10]
        shares = "".join(f" {recalls[c]:.4f} |" for c in DEPTHS)
        speed = f" {rate:,.0f} | {score_rate(quantizer, codes, data) / 1e6:.1f} M |"
        print(f"| {name} | {quantizer.code_size} |{shares}{speed}", flush=True)
    for how in CENTROIDS:
        between = (at_ten[f"rabitq2, {how}"] + at_ten[f"rabitq4, {how}"]) / 2
        gain = 100 * (at_ten[f"mixed 3, {how}"] - max(at_ten[f"rabitq3, {how}"], between))
        print(f"mixed at 3 bits, {how}: {gain:+.1f} points over the better of 3 bits and 2 with 4 interpolated")


def least_error(variances: npt.NDArray[np.float64], bits: float) -> float:
    """The least mean squared error of independent normal values at the given bits each, on average."""
    low, high = 1e-15 * variances.max(), variances.max()
    for _ in range(200):
        level = float(np.sqrt(low * high))
        rate = np.maximum(0, np.log2(np.maximum(variances, 1e-30) / level) / 2).mean()
        low, high = (level, high) if rate > bits else (low, level)
    return float(np.minimum(variances, level).mean())


def report_bound(data: Workload) -> None:
    """Print in dB what the best code gains on 3 even bits, and what more even bits gain."""
    x = coded_sample(data.base[:TRAINED], data.metric, None)
    centroids = Centroids.learn(x, "auto", 0, "mixed")
    assert centroids is not None
    variances = np.linalg.eigvalsh(np.cov(centroids.residual(x).T.astype(np.float64), bias=True))
    gain = 10 * np.log10(variances.mean() * EVEN_STEPS[3] / least_error(variances, 3))
    more = ", ".join(f"{bits} bits {10 * np.log10(EVEN_STEPS[3] / error):.1f}" for bits, error in EVEN_STEPS.items())
    print(f"error below that of 3 even bits, dB: any code of 3 bits {gain:.1f} at most; even bits: {more}", flush=True)


def main() -> None:
    """Report on the sets named, by default on all."""
    for name in sys.argv[1:] or sets.names():
        data = sets.load(name)
        report(data)
        report_bound(data)


if __name__ == "__main__":
    main()
