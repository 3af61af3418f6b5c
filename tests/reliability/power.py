"""R3: power cuts. Of what a commit writes, any sectors of 512 bytes may have reached the disk when the power goes.

LMDB flushes data before it writes its meta page. So with the meta page of before and any sectors of the commit, the
file must be what it was; with all sectors and the new meta page, what it became. The control leaves sectors out under
the new meta page, which a disk that lies about its flushes would: it must be detected, else this test sees nothing.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

import kills
import steps
from figures import Figures, Job
from forked_workers import ask, each

import qvec

SECTOR = 512
METAS = 2  # pages
PSIZE = 4096
SUBSETS = {"short": 40, "nightly": 500}  # of each workload
CONTROLS = {"short": 10, "nightly": 100}
WORKLOADS = ("add", "churn", "transactions")


class Image(NamedTuple):
    """A file after a power cut: what it was before, sectors of the commit that reached the disk, and what is right."""

    before: bytes
    after: bytes
    sectors: list[int]
    right: list[str]


def changed(before: bytes, after: bytes) -> tuple[list[int], list[int]]:
    """Sectors that differ, of pages and of the meta pages."""
    before = before.ljust(len(after), b"\0")
    numbers = range(len(after) // SECTOR)
    differ = [i for i in numbers if before[i * SECTOR : (i + 1) * SECTOR] != after[i * SECTOR : (i + 1) * SECTOR]]
    first = METAS * PSIZE // SECTOR
    return [i for i in differ if i >= first], [i for i in differ if i < first]


def written(image: Image) -> bytes:
    length = max([len(image.before), *((i + 1) * SECTOR for i in image.sectors)])
    if any(i < METAS * PSIZE // SECTOR for i in image.sectors):
        length = len(image.after)  # the flush before the meta page is written is of the file's length too
    content = bytearray(image.before.ljust(length, b"\0"))
    for i in image.sectors:
        content[i * SECTOR : (i + 1) * SECTOR] = image.after[i * SECTOR : (i + 1) * SECTOR]
    return bytes(content)


def contents(path: str) -> str:
    """What a file holds, in words; "damaged" where an error or a check says so."""
    try:
        state = kills.found(path)
    except qvec.QvecError as error:
        return f"damaged: {error}"
    if state["torn"] or state["wrong"]:
        return f"damaged: {state['torn']} {state['wrong']}"
    return repr(state["rows"])


def run(job: Job) -> Figures:
    figures = Figures("R3", "power cut: any sectors of a commit reached the disk")
    kills.warm_up(job.folder)
    for name in job.chosen(WORKLOADS):
        chance, path = random.Random(f"{job.seed} {name}"), job.folder / f"{name}.qvec"
        ask(steps.prepare, str(path), name)
        images, controls = [], []
        for number, _ in enumerate(steps.CHANGES[name][:2]):
            before, old = path.read_bytes(), ask(contents, str(path))
            ask(_make, str(path), name, number)
            after, new = path.read_bytes(), ask(contents, str(path))
            assert old != new
            data, meta = changed(before, after)
            assert len(data) > 0
            assert len(meta) == 1, f"{len(data)} sectors of data, {len(meta)} of meta pages"
            share = job.amount(SUBSETS) // 2
            images += [Image(before, after, _some(data, chance), [old]) for _ in range(share - 2)]
            images += [Image(before, after, data, [old]), Image(before, after, data + meta, [new])]
            few = CONTROLS[job.scale] // 2
            controls += [Image(before, after, meta + _most(data, chance), [new]) for _ in range(few)]
        verdicts = each(images, lambda image: _checked(image, job.folder))
        for image, verdict in zip(images, verdicts, strict=True):
            figures.count("images")
            if verdict not in image.right:
                figures.fail(f"seed {job.seed}, {name}: {len(image.sectors)} sectors give {verdict[:300]}")
        for image, verdict in zip(controls, each(controls, lambda image: _checked(image, job.folder)), strict=True):
            figures.count("controls")
            detected = verdict.startswith(("damaged", "SIG"))
            figures.count("controls detected", detected)
            if not detected and verdict not in image.right:
                figures.fail(f"seed {job.seed}, {name}: a lost sector under the new meta page gives {verdict[:300]}")
    if figures.amounts["controls detected"] < figures.amounts["controls"] // 2:
        figures.fail("most controls were not detected: this test is blind")
    return figures


def _make(path: str, name: str, number: int) -> None:
    with qvec.open(path) as db:
        steps.CHANGES[name][number][1](db)


def _some(sectors: list[int], chance: random.Random) -> list[int]:
    """Each with the same chance, which is any."""
    share = chance.random()
    return [i for i in sectors if chance.random() < share]


def _most(sectors: list[int], chance: random.Random) -> list[int]:
    """All but one to three."""
    lost = set(chance.sample(sectors, min(len(sectors), chance.randint(1, 3))))
    return [i for i in sectors if i not in lost]


def _checked(image: Image, folder: Path) -> str:
    path = folder / "cut.qvec"
    path.write_bytes(written(image))
    Path(f"{path}-lock").unlink(missing_ok=True)
    return contents(str(path))


__all__: list[Any] = ["run"]
