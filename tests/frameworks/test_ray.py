"""Sets of shards on Ray: workers and actors that are killed, timeouts, replicas, copies of a published set."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.vectors import clustered
from qvec import shards
from qvec.ray import Search, ShardActors, WriteShards, blocks_of

ray = pytest.importorskip("ray")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.alone, pytest.mark.timeout(1800)]

N, DIM, K, BLOCK = 4000, 12, 5, 500
RNG = np.random.default_rng(8)
X = clustered(RNG, N, DIM)
Q = clustered(RNG, 4, DIM)
WRITERS, KILLED_WRITERS = 2, 20
SEARCHES, SEARCHES_PER_KILL = 10_000, 200


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    here = Path(__file__).parent
    paths = os.pathsep.join(map(str, (Path(qvec.__file__).parents[1], here, here.parent)))
    os.environ.setdefault("RAY_worker_niceness", "0")
    ray.init(
        num_cpus=6,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    yield
    ray.shutdown()


class SlowWriter(WriteShards):
    """Notes its process, and gives the killer time."""

    def __init__(self, folder: str, pids: str) -> None:
        super().__init__(folder)
        (Path(pids) / str(os.getpid())).touch()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.05)
        out = super().__call__(batch)
        time.sleep(0.05)
        return out


def kill_one(pids: Path, rng: random.Random) -> int:
    """Kill a process that notes itself in a folder; 0 if there is none."""
    there = [int(path.name) for path in pids.iterdir()]
    rng.shuffle(there)
    for pid in there:
        (pids / str(pid)).unlink()
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        return 1
    return 0


def rows_of(start: int) -> Any:
    return ray.data.from_items([{"start": i} for i in range(start, start + N, BLOCK)], override_num_blocks=4)


def expand(batch: dict[str, Any]) -> dict[str, Any]:
    ids = np.concatenate([np.arange(start, start + BLOCK) for start in batch["start"]])
    return {"id": ids, "vector": X[ids % N]}


def test_killed_writers_lose_and_duplicate_nothing(tmp_path: Path) -> None:
    rng, killed, number = random.Random(1), 0, 0
    while killed < KILLED_WRITERS:
        number += 1
        folder, pids = tmp_path / f"s{number}", tmp_path / f"pids{number}"
        pids.mkdir()
        shards.create(folder, DIM, metric="l2", sample=X, code="int8")
        done = threading.Event()

        def work(pids: Path = pids, done: threading.Event = done) -> None:
            nonlocal killed
            while not done.wait(rng.uniform(0.1, 0.6)):
                killed += kill_one(pids, rng)

        killer = threading.Thread(target=work)
        killer.start()
        try:
            written = (
                rows_of(0)
                .map_batches(expand, batch_size=1)
                .map_batches(
                    SlowWriter,
                    fn_constructor_args=(str(folder), str(pids)),
                    batch_size=BLOCK,
                    concurrency=WRITERS,
                    num_cpus=0.5,
                    max_restarts=-1,
                    max_task_retries=-1,
                )
            )
            blocks = blocks_of(written)
        finally:
            done.set()
            killer.join()
        manifest = shards.commit(folder, blocks)
        with shards.open(folder, "r") as index:
            assert sorted(id for shard in index.shards() for id in shard.ids().tolist()) == list(range(N))
            assert index.verify(deep=False) == []
        shards.discard_staged(folder)
        assert {path.name for path in folder.glob("*.qvec")} == {*manifest.names, manifest.routes}


def built(folder: Path, partition: str = "block") -> Path:
    options: dict[str, Any] = {"shards": 4} if partition == "cluster" else {}
    shards.create(folder, DIM, metric="l2", partition=partition, sample=X, **options)  # type: ignore[arg-type]
    blocks = [shards.write_block(folder, f"b{i}", X[i::4], np.arange(i, N, 4)) for i in range(4)]
    if partition == "cluster":
        blocks = [shards.merge(folder, number, blocks) for number in range(4)]
    shards.commit(folder, blocks)
    return folder


def test_searches_go_on_while_actors_are_killed(tmp_path: Path) -> None:
    with shards.open(built(tmp_path / "s"), "r") as index:
        expected = index.search(Q, K).ids.tolist()
    actors = ShardActors(tmp_path / "s", num_cpus=0.5, replicas=2)
    try:
        for number in range(SEARCHES):
            killer = None
            if number % SEARCHES_PER_KILL == 0:  # by number, so that a slow machine can restart what was killed
                actor = random.choice(random.choice(actors.actors))
                killer = threading.Timer(random.uniform(0, 0.01), ray.kill, [actor], {"no_restart": False})
                killer.start()
            assert actors.search(Q, K).ids.tolist() == expected
            if killer is not None:
                killer.join()
    finally:
        actors.close()


def test_missing_shards_are_named_and_the_timeout_holds(tmp_path: Path) -> None:
    folder = built(tmp_path / "s", "cluster")
    name = shards.open(folder, "r").names[1]
    actors = ShardActors(folder, num_cpus=0.5)
    try:
        with shards.open(folder) as index:
            recalls = index.measure(Q, K)
            assert actors.search(Q, K, ask=2).ids.tolist() == index.search(Q, K, ask=2).ids.tolist()
            assert len(recalls) == 4
        with pytest.raises(qvec.InputError, match="ef"):
            actors.search(Q, K, ef=-1)
    finally:
        actors.close()
    (folder / name).unlink()
    actors = ShardActors(folder, num_cpus=0.5)
    try:
        with pytest.raises(qvec.MissingShardError, match=name):
            actors.search(Q, K)
        found = actors.search(Q, K, partial=True)
        assert found.missing == (name,)
        assert not (found.shards == 1).any()
        stopped = ray.get(actors.actors[2][0].pid.remote())
        os.kill(stopped, signal.SIGSTOP)
        start = time.monotonic()
        late = actors.search(Q, K, partial=True, timeout=0.5)
        assert time.monotonic() - start < 1.0
        assert len(late.missing) == 2
        with pytest.raises(qvec.MissingShardError, match=r"no answer within 0\.5 s"):
            actors.search(Q, K, timeout=0.5)
        os.kill(stopped, signal.SIGCONT)
    finally:
        actors.close()


def test_actors_search_text_with_the_counts_of_all_shards(tmp_path: Path) -> None:
    words = [" ".join(f"w{i * j % 23}" for j in range(1, 3 + i % 7)) for i in range(400)]
    fields: Any = {"body": "text"}
    shards.create(tmp_path / "s", DIM, metric="l2", fields=fields)
    blocks = [
        shards.write_block(
            tmp_path / "s", f"b{a:03}", X[a:b], np.arange(a, b), [{"body": words[i]} for i in range(a, b)]
        )
        for a, b in ((0, 30), (30, 400))
    ]
    shards.commit(tmp_path / "s", blocks)
    actors = ShardActors(tmp_path / "s", num_cpus=0.5)
    with (
        shards.open(tmp_path / "s", "r") as index,
        qvec.create(tmp_path / "one.qvec", DIM, metric="l2", fields=fields) as one,
    ):
        one.add(X[:400], payloads=[{"body": text} for text in words])
        try:
            for query, text in ((None, "w5 w9"), (Q[0], "w5 w9"), (Q, ["w1", "w2 w3", "w4", "w5"])):
                found, expected = actors.search(query, K, text=text), index.search(query, K, text=text)
                assert found.ids.tolist() == expected.ids.tolist()
                np.testing.assert_array_equal(found.scores, expected.scores)
                np.testing.assert_allclose(found.scores, one.search(query, K, text=text).scores, rtol=1e-5)
        finally:
            actors.close()


def test_actors_and_workers_fetch_a_published_set(tmp_path: Path) -> None:
    with shards.open(built(tmp_path / "s"), "r") as index:
        made = shards.publish(index, str(tmp_path / "bucket"))
        expected = index.search(Q, K).ids.tolist()
    actors = ShardActors(tmp_path / "cache", url=str(tmp_path / "bucket"), num_cpus=0.5)
    try:
        assert actors.search(Q, K).ids.tolist() == expected
        options = {"fn_constructor_args": (str(tmp_path / "w"), K), "concurrency": 1}
        options["fn_constructor_kwargs"] = {"column": "data", "url": str(tmp_path / "bucket")}
        rows = ray.data.from_numpy(Q).map_batches(Search, **options).take_all()
        assert [row["ids"].tolist() for row in rows] == expected
    finally:
        actors.close()
    path = tmp_path / "bucket" / made.names[2]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    actors = ShardActors(tmp_path / "other", url=str(tmp_path / "bucket"), num_cpus=0.5)
    try:
        found = actors.search(Q, K, partial=True)
        assert found.missing == (made.names[2],)
        assert not (found.shards == 2).any()
    finally:
        actors.close()
