"""Sets of shards: many collections in one folder, built by many tasks, searched and changed as one.

The manifest of the folder lists the shards of the set; renaming a new manifest replaces it. A task writes each block of
the input to a file whose name depends on the block, so that a repeated task replaces its earlier file
(docs/sharding.md).
"""

from qvec.shards.blocks import Block, merge, write_block
from qvec.shards.committing import commit, discard_staged
from qvec.shards.creating import create
from qvec.shards.manifest import Manifest, Shard
from qvec.shards.rebalancing import rebalance
from qvec.shards.remote import fetch, publish
from qvec.shards.shard_set import ShardSet, open

__all__ = [
    "Block",
    "Manifest",
    "Shard",
    "ShardSet",
    "commit",
    "create",
    "discard_staged",
    "fetch",
    "merge",
    "open",
    "publish",
    "rebalance",
    "write_block",
]
