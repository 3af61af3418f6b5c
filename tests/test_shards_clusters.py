"""Shards by cluster: how centroids are grouped into shards, and how many neighbors the first shards have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.vectors import clustered
from qvec import shards
from qvec.demo.corpus import load_corpus
from qvec.shards import partition

DIM = 12


def test_the_grouping_with_most_neighbors_in_the_first_shards_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = clustered(np.random.default_rng(5), 3000, DIM)
    judged: list[float] = []

    def judge(*args: Any) -> float:
        judged.append(share_asked(*args))
        return judged[-1]

    share_asked = partition.share_asked
    monkeypatch.setattr(partition, "share_asked", judge)
    rows = np.arange(2000, 3000)
    scores = sample[rows] @ sample.T - np.square(sample).sum(axis=1) / 2
    scores[np.arange(len(rows)), rows] = -np.inf
    near = np.argsort(-scores, axis=1)[:, :10]
    kept = partition.learn(sample, 8, "l2", 1)
    assert len(judged) == partition.TRIALS
    assert len({*judged}) > 1
    own, order = partition.assign(sample, kept, "l2"), partition.ranked(sample[rows], kept, "l2", 8)
    share = np.mean([np.isin(own[near[i]], order[i, :2]).mean() for i in range(len(rows))])
    assert abs(share - max(judged)) < 0.02  # judged by other rows


@pytest.mark.slow
def test_eight_of_32_shards_by_cluster_have_most_neighbors_of_real_questions(tmp_path: Path) -> None:
    corpus, k = load_corpus(), 10
    vectors, queries = np.asarray(corpus.vectors, np.float32), np.asarray(corpus.queries, np.float32)
    shards.create(tmp_path / "s", vectors.shape[1], partition="cluster", shards=32, sample=vectors)
    block = shards.write_block(tmp_path / "s", "b", vectors, np.arange(len(vectors)))
    shards.commit(tmp_path / "s", [shards.merge(tmp_path / "s", number, [block]) for number in range(32)])
    scores = queries @ vectors.T / np.linalg.norm(vectors, axis=1)
    true = np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()
    with shards.open(tmp_path / "s", "r") as index:
        found = index.search(queries, k, ask=8, include=()).ids.tolist()
    assert np.mean([len({*a} & {*b}) / k for a, b in zip(found, true, strict=True)]) >= 0.95
