"""R3: power cuts. Any of the 512-byte sectors that a commit writes may have reached the disk at a power cut.

LMDB flushes data before it writes its meta page. With the old meta page and any sectors of the commit, the file must
be in the old state; with all sectors and the new meta page, in the new state. A control omits sectors under the new
meta page, as a disk that ignores flushes would. The damage must be detected; otherwise this test detects nothing.
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
WORKLOADS = ("add", "churn", "transactions", "text")


class Image(NamedTuple):
    """A file after a power cut: the old content, the sectors that reached the disk, and the expected content."""

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
        length = len(image.after)  # the flush before the meta page also writes the length of the file
    content = bytearray(image.before.ljust(length, b"\0"))
    for i in image.sectors:
        content[i * SECTOR : (i + 1) * SECTOR] = image.after[i * SECTOR : (i + 1) * SECTOR]
    return bytes(content)


def contents(path: str) -> str:
    """The content of a file in words; "damaged" if a call raises an error or a check fails."""
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
    """Each element with the same random probability."""
    share = chance.random()
    return [i for i in sectors if chance.random() < share]


def _most(sectors: list[int], chance: random.Random) -> list[int]:
    """All but one to three elements."""
    lost = set(chance.sample(sectors, min(len(sectors), chance.randint(1, 3))))
    return [i for i in sectors if i not in lost]


def _checked(image: Image, folder: Path) -> str:
    path = folder / "cut.qvec"
    path.write_bytes(written(image))
    Path(f"{path}-lock").unlink(missing_ok=True)
    return contents(str(path))


__all__: list[Any] = ["run"]
