"""A set of shards in an S3 server of this process (moto)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec
from helpers.vectors import clustered
from qvec import shards

moto = pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")
boto3 = pytest.importorskip("boto3")

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.alone]

DIM, K = 12, 5
RNG = np.random.default_rng(9)
X = clustered(RNG, 600, DIM)
Q = clustered(RNG, 6, DIM)
URL = "s3://vectors/set"


@pytest.fixture
def options() -> Iterator[dict[str, Any]]:
    """Options of the file system of an empty bucket."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    url, region = f"http://{host}:{port}", "us-east-1"
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    boto3.client("s3", endpoint_url=url, region_name=region, **keys).create_bucket(Bucket="vectors")
    s3fs.S3FileSystem.clear_instance_cache()
    yield {"endpoint_url": url, "key": "a", "secret": "b", "client_kwargs": {"region_name": region}}
    server.stop()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[shards.ShardSet]:
    shards.create(tmp_path / "s", DIM, metric="l2")
    blocks = [shards.write_block(tmp_path / "s", f"b{i}", X[i::3], np.arange(i, 600, 3)) for i in range(3)]
    shards.commit(tmp_path / "s", blocks)
    with shards.open(tmp_path / "s") as made:
        yield made


def test_a_set_is_published_to_and_fetched_from_s3(
    tmp_path: Path, index: shards.ShardSet, options: dict[str, Any]
) -> None:
    shards.publish(index, URL, storage_options=options)
    index.delete([5])
    made = shards.publish(index, URL, storage_options=options)
    shards.fetch(URL, tmp_path / "cache", storage_options=options)
    with shards.open(tmp_path / "cache", "r") as copy:
        assert copy.verify() == []
        assert copy.search(Q, K).ids.tolist() == index.search(Q, K).ids.tolist()
        assert 5 not in copy
        assert copy.names == made.names


@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_a_damaged_object_of_s3_is_named(
    tmp_path: Path, index: shards.ShardSet, options: dict[str, Any], how: str
) -> None:
    made = shards.publish(index, URL, storage_options=options)
    fs, path = s3fs.S3FileSystem(**options), f"vectors/set/{made.names[1]}"
    data = bytearray(fs.cat_file(path))
    data[len(data) // 2] ^= 4
    if how == "gone":
        fs.rm_file(path)
    else:
        fs.pipe_file(path, bytes(data if how == "flip" else data[:-1]))
    s3fs.S3FileSystem.clear_instance_cache()
    expected = qvec.NotFoundError if how == "gone" else qvec.CorruptError
    with pytest.raises(expected, match=made.names[1].replace(".", r"\.")):
        shards.fetch(URL, tmp_path / "cache", storage_options=options)
    with pytest.raises(qvec.NotFoundError):
        shards.open(tmp_path / "cache", "r")
