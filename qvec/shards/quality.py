"""Evaluation, choice of codes and drift of a set, with a sample of all shards in a temporary collection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from qvec.collection.collection import Collection
from qvec.collection.open import create, open
from qvec.common.errors import InputError
from qvec.common.types import ArrayLike, Float32Array
from qvec.quality.choose import Choice
from qvec.quality.report import Report
from qvec.shards.folder import MAP_SIZE, locked
from qvec.shards.manifest import Manifest, read, write

if TYPE_CHECKING:
    from qvec.quality.drift import Drift


def draw(shards: Sequence[Collection], n: int, seed: int, rows: Sequence[slice] | None = None) -> Float32Array:
    """About ``n`` vectors, float32, of all shards in proportion to their sizes. rows: of each shard, oldest first."""
    rng = np.random.default_rng(seed)
    chosen_rows = [slice(None)] * len(shards) if rows is None else rows
    ids = [shard.ids()[part] for shard, part in zip(shards, chosen_rows, strict=True)]
    total = sum(map(len, ids))
    parts = []
    for shard, own in zip(shards, ids, strict=True):
        count = len(own) if total <= n else round(n * len(own) / total)
        chosen = own[np.sort(rng.permutation(len(own))[:count])]
        parts.append(np.asarray(shard.get(chosen, missing="ignore").vectors, np.float32))
    return np.concatenate(parts)


@contextmanager
def sampled(manifest: Manifest, shards: Sequence[Collection], n: int, seed: int) -> Iterator[Collection]:
    """A temporary collection of a sample of all shards."""
    with create(":memory:", manifest.dim, **manifest.creation | {"ids": "int64", "fields": None}) as db:
        if manifest.calibration is not None:
            db.import_calibration(manifest.calibration, activate=True)
        db.add(draw(shards, n, seed))
        yield db


def evaluate(
    manifest: Manifest,
    shards: Sequence[Collection],
    queries: ArrayLike | None,
    sample: int,
    seed: int,
    options: dict[str, Any],
) -> Report:
    """Measure codes on a sample of the set, which has vectors only. Raises InputError for relevant ids."""
    if of_text := sorted({"relevant", "texts", "sparse", "fusion", "fusion_depth", "text_weights"} & options.keys()):
        raise InputError(f"{of_text[0]} is for an evaluation of one collection: a sample of the shards has no payloads")
    with sampled(manifest, shards, sample, seed) as db:
        report: Report = db.evaluate(queries, seed=seed, **options)
        return report


@dataclass(frozen=True)
class SetChoice:
    """The choice of a code for a set, made on a sample of it. ``choice``: as of :meth:`Collection.choose`."""

    choice: Choice
    folder: Path
    manifest: Manifest
    sample: Float32Array
    timeout: float

    @classmethod
    def make(
        cls,
        folder: Path,
        manifest: Manifest,
        shards: Sequence[Collection],
        sample: int,
        seed: int,
        timeout: float,
        options: dict[str, Any],
    ) -> Self:
        """Choose on a sample."""
        with sampled(manifest, shards, sample, seed) as db:
            made: Choice = db.choose(seed=seed, indexes="current", **options)
            return cls(made, folder, manifest, draw(shards, sample, seed), timeout)

    @property
    def met(self) -> bool:
        """Whether a code meets the target."""
        return self.choice.met

    def apply(self) -> str:
        """Train the code on the sample, requantize every shard to it, and make its oversampling the set's default.

        Returns the calibration of all shards. Shards are requantized one by one, during searches; a call that died is
        repeated. Raises InputError if no code meets the target.
        """
        row = self.choice.row
        if row is None:
            raise InputError(str(self.choice))
        creation = self.manifest.creation | {"ids": "int64", "fields": None, "code": row.config}
        with create(":memory:", self.manifest.dim, sample=self.sample, **creation) as db:
            calibration = str(db.export_calibration())
        for name in self.manifest.names:
            with open(self.folder / name, map_size=MAP_SIZE, timeout=self.timeout) as shard:
                shard.import_calibration(calibration, activate=True)
        with locked(self.folder, self.timeout):
            now = read(self.folder)
            config = replace(now.config, code=row.config)
            after = replace(
                now, generation=now.generation + 1, config=config, calibration=calibration, oversample=row.oversample
            )
            write(self.folder, after)
        return calibration

    def __str__(self) -> str:
        return str(self.choice)


def drift(manifest: Manifest, shards: Sequence[Collection], sample: int, seed: int) -> Drift:
    """Compare vectors of later commits and of routed writes with those of the first commit.

    Rows of a shard up to the number that its manifest entry names are those of its commit, the rest is newer.
    """
    if not shards:
        raise InputError("the set has no shards yet: write blocks and commit() them")
    oldest = min(shard.generation for shard in manifest.shards)
    ends = [shard.rows if shard.generation == oldest else 0 for shard in manifest.shards]
    reference = draw(shards, sample, seed, [slice(end) for end in ends])
    recent = draw(shards, sample, seed, [slice(end, None) for end in ends])
    creation = manifest.creation | {"ids": "int64", "fields": None}
    with create(":memory:", manifest.dim, sample=reference, **creation) as db:
        db.add(reference)
        if len(recent):
            db.add(recent)
        return db.drift()
