"""Every adapter of an installed peer, against exact neighbors."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from helpers.vectors import clustered
from qvec import bench
from qvec.bench.contestants import PEERS, adapter_class, locate
from qvec.common.types import Metric
from qvec.datasets import Workload, exact_knn

DIM, K = 64, 10  # rabitqlib needs at least 64 dimensions
ALL = clustered(np.random.default_rng(4), 2050, DIM)
FAST = bench.Settings(k=K, rounds=1, trial_seconds=0.5, build_timeout=200, trial_timeout=60)


def installed(name: str) -> bool:
    module = adapter_class(locate(name)).module.partition(".")[0]
    return importlib.util.find_spec(module) is not None


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("name", [name for name in PEERS if installed(name)])
def test_a_peer_finds_the_neighbors_and_is_measured_whole(name: str, metric: Metric) -> None:
    truth = exact_knn(ALL[:2000], ALL[2000:], K, metric)[0]
    (peer,), skipped = bench.choose_peers([name], metric)
    result = bench.run(Workload("small", metric, ALL[:2000], ALL[2000:], truth), [peer], FAST)
    assert not skipped
    assert result.failed == {}
    (entry,) = result.entries
    first, last = entry.points[0], entry.points[-1]
    assert last.recall > 0.95
    assert first.recall <= last.recall + 0.02
    assert last.batch_recall is None or last.batch_recall == pytest.approx(last.recall, abs=0.02)
    assert entry.version[0].isdigit()
    assert entry.file_bytes is not None
    assert entry.file_bytes > 2000 * DIM
    assert all(point.qps > 0 and point.p50_us <= point.p99_us for point in entry.points)
