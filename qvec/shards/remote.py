"""Finished sets of shards in object storage, through fsspec (extra ``remote``).

An object is a copy of a file of the set at one moment. Its name contains its checksum, so it never changes. The
manifest is written last. A fetched object is compared with the manifest before it gets its final name: a truncated or
changed object raises an error and is never searched.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from qvec.common import system
from qvec.common.errors import CorruptError, InputError, NotFoundError
from qvec.common.extras import require
from qvec.shards import manifest as manifests
from qvec.shards.committing import describe
from qvec.shards.folder import STAGED, SUFFIX, checksum, move
from qvec.shards.manifest import MANIFEST, Manifest, Shard
from qvec.shards.shard_set import ShardSet
from qvec.storage.atomic_file import discard, replace_bytes

_LOCAL = ("file", "local")  # protocols of fsspec whose files do not appear complete


class Remote:
    """A folder of objects. ``url``: as of fsspec, such as "s3://bucket/set"; options: of its file system."""

    def __init__(self, url: str, options: dict[str, Any] | None = None) -> None:
        core = require("fsspec.core")
        self.url = url
        self.fs, self.base = core.url_to_fs(os.fspath(url), **(options or {}))

    def path(self, name: str) -> str:
        """The path of an object."""
        return f"{self.base.rstrip('/')}/{name}"

    def size(self, name: str) -> int | None:
        """The size of an object, None if there is none."""
        try:
            return int(self.fs.info(self.path(name))["size"])
        except FileNotFoundError:
            return None

    def put(self, file: Path, name: str) -> None:
        """Upload a file, unless the object is there with this size."""
        if self.size(name) != file.stat().st_size:
            self.fs.makedirs(self.base, exist_ok=True)
            self.fs.put_file(str(file), self.path(name))

    def put_bytes(self, data: bytes, name: str) -> None:
        """Replace an object by one step."""
        protocols = self.fs.protocol if isinstance(self.fs.protocol, tuple) else (self.fs.protocol,)
        if set(protocols) & set(_LOCAL):
            replace_bytes(self.path(name), data)
        else:
            self.fs.pipe_file(self.path(name), data)

    def manifest(self) -> Manifest:
        """The published manifest. Raises NotFoundError, CorruptError or FormatError."""
        try:
            data = self.fs.cat_file(self.path(MANIFEST))
        except FileNotFoundError as error:
            raise NotFoundError(f"{self.url} is no published set of shards: it has no {MANIFEST}") from error
        manifest = manifests.parse(data, f"{self.url}/{MANIFEST}")
        if not manifest.is_copy:
            raise InputError(f"{self.url} was not published: its folder was copied while it could change")
        return manifest

    def fetch(self, name: str, size: int, crc: int, folder: Path) -> Path:
        """A local copy of an object, which is downloaded unless ``folder`` has it unharmed.

        Raises CorruptError naming the object if it has another size or checksum than the manifest says.
        """
        path = folder / name
        if path.exists() and checksum(path) == (size, crc):
            return path
        draft = folder / f"{name}.{os.urandom(6).hex()}.draft"
        try:
            self._download(name, draft)
            found, found_crc = checksum(draft)
            if found != size:
                raise CorruptError(f"{self.url}/{name} has {found} bytes, the manifest says {size}")
            if found_crc != crc:
                raise CorruptError(f"{self.url}/{name} is damaged: it fails the checksum of the manifest")
            move(draft, path)
        finally:
            discard(str(draft))
        return path

    def _download(self, name: str, draft: Path) -> None:
        try:
            self.fs.get_file(self.path(name), str(draft))
        except FileNotFoundError as error:
            raise NotFoundError(f"{self.url}/{name} is missing; the manifest lists it") from error
        with open(draft, "rb+") as file:
            system.flush_file(file.fileno())


def publish(index: ShardSet, url: str, *, storage_options: dict[str, Any] | None = None) -> Manifest:
    """Copy a set, as of now, to object storage; the published manifest.

    url: of a folder, as of fsspec. storage_options: of its file system. Others read and write the set meanwhile.
    Objects that are there already are not copied again; older ones stay, for readers of older manifests. One process at
    a time publishes to a url.

    Raises MissingExtraError without fsspec, LockedError, and the errors of the file system.
    """
    remote = Remote(url, storage_options)
    with index.snapshot() as snapshot, tempfile.TemporaryDirectory(prefix=".publish-", dir=index.path / STAGED) as work:
        before = snapshot.manifest
        shards = []
        for entry, shard in zip(before.shards, snapshot.shards(), strict=True):
            draft = Path(work) / entry.name
            shard.backup(draft)
            made = _named(describe(draft, entry.generation))
            remote.put(draft, made.name)
            shards.append(made)
            discard(str(draft))
        draft = Path(work) / str(before.routes)
        snapshot.copy_routes(str(draft))
        size, crc = checksum(draft)
        routes = f"{draft.stem}-{crc:08x}{SUFFIX}"
        remote.put(draft, routes)
    after = replace(before, shards=tuple(shards), routes=routes, size=size, crc=crc, is_copy=True)
    remote.put_bytes(manifests.dump(after), MANIFEST)
    return after


def _named(shard: Shard) -> Shard:
    """A shard under the name of its object."""
    return replace(shard, name=f"{shard.name.removesuffix(SUFFIX)}-{shard.crc:08x}{SUFFIX}")


def fetch(
    url: str,
    folder: str | os.PathLike[str],
    *,
    shards: Iterable[int] | None = None,
    storage_options: dict[str, Any] | None = None,
) -> Manifest:
    """Copy a published set, or a newer state of it, to a local folder, which :func:`open` opens with ``mode="r"``.

    folder: a cache, new or of an earlier call: files that it has unharmed are not copied again, and files that the new
    manifest does not list are removed. shards: the numbers of those to copy; default, all. The other ones are missing
    shards of the copy: searches need ``partial=True``.

    Raises NotFoundError or CorruptError naming an object that is missing, truncated or damaged; the folder then has
    what it had before. Raises MissingExtraError without fsspec, InputError if the folder has a set that is no copy.
    """
    remote, path = Remote(url, storage_options), Path(os.path.realpath(folder))
    manifest = remote.manifest()
    path.mkdir(parents=True, exist_ok=True)
    if (path / MANIFEST).exists() and not manifests.read(path).is_copy:
        raise InputError(f"{path} has a set of shards that is no copy")
    numbers = range(len(manifest.shards)) if shards is None else sorted(set(shards))
    if wrong := [number for number in numbers if not 0 <= number < len(manifest.shards)]:
        raise InputError(f"shard {wrong[0]} is not one of 0 to {len(manifest.shards) - 1}")
    for number in numbers:
        entry = manifest.shards[number]
        remote.fetch(entry.name, entry.bytes, entry.crc, path)
    remote.fetch(str(manifest.routes), manifest.size, manifest.crc, path)
    manifests.write(path, manifest)
    kept = {*manifest.names, manifest.routes}
    for file in path.glob(f"*{SUFFIX}"):
        if file.name not in kept:
            discard(str(file))
    return manifest
