"""R4, R5: files that are cut short or damaged.

The result must be an error or the answers of the sound file, and never a signal. Each damage is checked twice. Opened
as usual, a file may give other answers only if `verify` reports the damage. Opened with ``untrusted=True``, it may not
give other answers or kill the process.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from figures import Figures, Job
from forked_workers import ask, each

import qvec
from helpers.vectors import clustered

DIM = 24
N = 240
PAGE = 4096
X = clustered(np.random.default_rng(2), N, DIM)
CUTS = {"short": 60, "nightly": 5000}
DAMAGES = {"short": 25, "nightly": 5000}  # of each kind
MANY = 2000  # of these, one in four is opened as usual as well
IdKind = Literal["int64", "str"]
COLLECTIONS: dict[IdKind, dict[str, Any]] = {
    "int64": {"index": qvec.HNSW(m=16, ef_construction=40, layout="packed")},
    "str": {"index": qvec.IVF(nlist=8)},
}
FIELDS = {"row": "int", "tag": "keyword", "body": "text", "lexical": "sparse"}


def payload(i: int) -> dict[str, Any]:
    text = f"common word{i % 7} word{i * i % 50} row{i}"
    return {"row": i, "tag": f"t{i % 5}", "body": text, "lexical": [[i % 11, 1000 + i], [1.5, 0.5 + i % 4]]}


def create(path: str, ids: IdKind) -> None:
    """Several commits with deletions, so that the file has old pages; next to it, a description of each state."""
    with qvec.create(path, DIM, metric="l2", code="int8", ids=ids, fields=FIELDS, **COLLECTIONS[ids]) as db:  # type: ignore[arg-type]
        names = [f"x{i}" if ids == "str" else i for i in range(N)]
        payloads = [payload(i) for i in range(N)]
        for number, start in enumerate(range(0, N, N // 4)):
            batch = slice(start, start + N // 4)
            db.add(X[batch], names[batch], payloads[batch])
            Path(f"{path}.{number}").write_bytes(Path(path).read_bytes())
        db.delete(names[50:70])
        Path(f"{path}.4").write_bytes(Path(path).read_bytes())
        db.upsert(X[90:100], names[80:90], payloads[90:100])


def answers(db: qvec.Collection) -> str:
    """A digest of everything that a collection returns."""
    said = hashlib.sha256()
    lists = {"nprobe": 3} if db.stats().lists else {}
    where = {"row": {"$gte": 100}, "tag": "t1"}
    for options in ({"include": (), **lists}, {"include": (), "exact": True}, {"where": where, **lists}):
        hits = db.search(X[::7], 10, **options)  # type: ignore[arg-type]
        payloads = hits.payloads if "payloads" in hits.included else None
        said.update(repr((hits.ids.tolist(), payloads)).encode() + hits.distances.tobytes())
    by_text = db.search(text=["common word3 row7", "word9"], k=60), db.search(sparse={3: 1.0, 1020: 2.0}, k=60)
    for hits in by_text:
        said.update(repr((hits.ids.tolist(), hits.payloads)).encode() + hits.distances.tobytes())
    for records in db.scan(batch_size=100):  # which reads each payload once, get() again
        said.update(repr((records.ids.tolist(), records.payloads)).encode() + records.vectors.tobytes())
        found = db.get(records.ids)
        said.update(repr(found.payloads).encode() + found.vectors.tobytes())
    said.update(repr((len(db), db.count(where), db.count({"body": {"$match": "common word4"}}))).encode())
    return said.hexdigest()


class Damage(NamedTuple):
    """Bytes of a file replaced at some places, or the file cut at ``length``."""

    kind: str
    patches: list[tuple[int, bytes]]
    length: int | None = None

    def apply(self, sound: bytes) -> bytes:
        damaged = bytearray(sound)
        for at, new in self.patches:
            damaged[at : at + len(new)] = new
        return bytes(damaged[: self.length])


def flip(sound: bytes, at: int, chance: random.Random) -> tuple[int, bytes]:
    return at, bytes([sound[at] ^ 1 << chance.randrange(8)])


def uniform(sound: bytes, older: list[bytes], chance: random.Random) -> Damage:
    return Damage("bit", [flip(sound, chance.randrange(len(sound)), chance)])


def block_header(sound: bytes, older: list[bytes], chance: random.Random) -> Damage:
    at = chance.choice([at for at in range(0, len(sound), PAGE) if sound[at + 16 : at + 20] in (b"QVB1", b"QVD1")])
    return Damage("bit of a block's header", [flip(sound, at + 16 + chance.randrange(48), chance)])


def page_header(sound: bytes, older: list[bytes], chance: random.Random) -> Damage:
    at = PAGE * chance.randrange(len(sound) // PAGE) + chance.randrange(40)
    return Damage("bit of a page's header", [flip(sound, at, chance)])


def swapped(sound: bytes, older: list[bytes], chance: random.Random) -> Damage:
    """Exchange two pages, with or without their numbers."""
    a, b = (PAGE * n for n in chance.sample(range(2, len(sound) // PAGE), 2))
    skip = chance.choice((0, 16))
    return Damage("two pages swapped", [(a + skip, sound[b + skip : b + PAGE]), (b + skip, sound[a + skip : a + PAGE])])


def zeroed(sound: bytes, older: list[bytes], chance: random.Random) -> Damage:
    return Damage("a page of zeros", [(PAGE * chance.randrange(len(sound) // PAGE), bytes(PAGE))])


def restored(sound: bytes, older: list[bytes], chance: random.Random) -> Damage:
    """A page in the state of an earlier commit. Meta pages are excluded: they would make the file that of another
    commit."""
    before = chance.choice(older)
    pages = [at for at in range(2 * PAGE, len(before), PAGE) if before[at : at + PAGE] != sound[at : at + PAGE]]
    at = chance.choice(pages)
    return Damage("an older page", [(at, before[at : at + PAGE])])


KINDS: dict[str, Callable[[bytes, list[bytes], random.Random], Damage]] = {
    "bit": uniform, "block": block_header, "page": page_header, "swap": swapped, "zeros": zeroed, "older": restored,
}  # fmt: skip


def cut(sound: bytes, number: int, chance: random.Random) -> Damage:
    """A file shortened by any number of pages or bytes."""
    length = PAGE * chance.randrange(len(sound) // PAGE) if number % 2 else chance.randrange(len(sound))
    return Damage("cut", [], length)


def check(path: Path, sound: bytes, truth: str, damage: Damage, untrusted: bool) -> str:
    """The outcome for a damaged copy: "same", "error", "found by verify", or a description of the failure."""
    path.write_bytes(damage.apply(sound))
    Path(f"{path}-lock").unlink(missing_ok=True)
    try:
        with qvec.open(path, "r", untrusted=untrusted) as db:
            try:
                if answers(db) == truth:
                    return "same"
            except qvec.QvecError:
                return "error"
            return "found by verify" if db.verify() else "other answers"
    except qvec.QvecError:
        return "error"
    except Exception as error:
        return f"raised {error!r}"


def _truth(path: str) -> str:
    with qvec.open(path, "r") as db:
        return answers(db)


def run_cuts(job: Job) -> Figures:
    figures = Figures("R4", "files cut short")
    for path, sound, truth, _, chance in _prepared(job):
        _check_all([cut(sound, i, chance) for i in range(job.amount(CUTS) // 2)], path, sound, truth, figures)
    return figures


def run_damages(job: Job) -> Figures:
    figures = Figures("R5", "damaged files")
    for path, sound, truth, older, chance in _prepared(job):
        each_kind = -(-job.amount(DAMAGES) // len(COLLECTIONS))
        damages = [KINDS[kind](sound, older, chance) for kind in job.chosen(KINDS) for _ in range(each_kind)]
        _check_all(damages, path, sound, truth, figures)
    return figures


def _prepared(job: Job) -> Iterator[tuple[Path, bytes, str, list[bytes], random.Random]]:
    for ids in COLLECTIONS:
        path = job.folder / f"{ids}.qvec"
        create(str(path), ids)
        older = [Path(f"{path}.{number}").read_bytes() for number in range(5)]
        yield (
            job.folder / "damaged.qvec",
            path.read_bytes(),
            ask(_truth, str(path)),
            older,
            random.Random(f"{job.seed} {ids}"),
        )


def _check_all(damages: list[Damage], path: Path, sound: bytes, truth: str, figures: Figures) -> None:
    for untrusted in (True, False):
        mode = "untrusted" if untrusted else "usual"
        chosen = damages if untrusted or len(damages) < MANY else damages[::4]
        verdicts = each(chosen, lambda damage, u=untrusted: check(path, sound, truth, damage, u))  # type: ignore[misc]
        for damage, verdict in zip(chosen, verdicts, strict=True):
            figures.count("corruptions", untrusted)
            figures.count(f"{mode}, {damage.kind}: {verdict.partition('(')[0]}")
            allowed = {"same", "error"} if untrusted else {"same", "error", "found by verify", "SIGABRT", "SIGBUS"}
            if verdict not in allowed:
                places = [(at, len(new)) for at, new in damage.patches] or damage.length
                figures.fail(f"{damage.kind} at {places}, opened as {mode}: {verdict}")
