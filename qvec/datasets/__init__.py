"""Loaders of vectors, ids, payloads and ground truth in common file formats."""

from qvec.datasets.annbenchmarks import Benchmark, hdf5_metric, load_benchmark
from qvec.datasets.ground_truth import exact_knn
from qvec.datasets.grow import grow
from qvec.datasets.sidecars import load_ids, load_payloads
from qvec.datasets.vectors import SUFFIXES, load_vectors
from qvec.datasets.workload import Workload, load_workload, with_noise

__all__ = [
    "SUFFIXES",
    "Benchmark",
    "Workload",
    "exact_knn",
    "grow",
    "hdf5_metric",
    "load_benchmark",
    "load_ids",
    "load_payloads",
    "load_vectors",
    "load_workload",
    "with_noise",
]
