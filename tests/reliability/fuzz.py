"""R7: files with random content, and random data for the parsers. Inputs with new outcomes are kept.

The corpus contains inputs by parser: those that first led to a new error, to a value, or to a defect. Each run gives
all of them to the parsers again, and mutates them.
"""

from __future__ import annotations

import base64
import json
import random
import re
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from crafted_files import COLLECTIONS, DIM, HANG, N, base, check_all, prepare, records_of
from figures import Figures, Job
from forked_workers import each
from scramble import mutated, random_case, scramble

import qvec
from qvec._kernels import bits_roaring
from qvec.codes.configs import Flat, Int8
from qvec.codes.registry import from_state
from qvec.common.plain_state import encode
from qvec.quality.drift_record import decode_drift_record
from qvec.schema.config import Config
from qvec.schema.quantizer_export import import_quantizer
from qvec.schema.state import decode_state
from qvec.search.curves import Curves
from qvec.storage import records

SLOW = 1.0  # seconds for one input
FILES = {"short": 120, "nightly": 12_000}
INPUTS = {"short": 5_000, "nightly": 40_000}
CHUNK = 100  # inputs that one call of `try_chunk` makes
CORPUS = Path(__file__).parent / "corpus"
VALUES = re.compile(r"""'[^']*'|"[^"]*"|[0-9][0-9.e+-]*|\b(?:nan|inf|True|False|None)\b|[\[({].*""", re.DOTALL)
LONGEST = 4096  # bytes of an input that is kept
CONFIG = Config(DIM, "l2", "int64", "f32", Int8(), Flat(), None, 0)
Seeds = dict[str, list[bytes]]


def unpack(data: bytes) -> object:
    try:
        return records.unpack(data)
    except ValueError as error:  # the callers convert this error to one that names the record
        raise qvec.FormatError(f"not plain data: {error}") from error


def set_bits(data: bytes) -> None:
    bits = np.zeros(32, np.uint64)
    bits_roaring(data, 0, N, bits)
    assert not bits[-(-N // 64) :].any(), "bits beyond the rows"


PARSERS: dict[str, Callable[[bytes], object]] = {
    "record": unpack,
    "state": lambda data: decode_state(unpack(data)),
    "bitmap": set_bits,
    "quantizer": lambda data: from_state(unpack(data)),
    "curves": lambda data: Curves.from_state(unpack(data)),
    "drift": lambda data: decode_drift_record(unpack(data), DIM),
    "export": lambda data: import_quantizer(data, CONFIG),
}


def outcome(parser: str, data: bytes) -> tuple[str, bool]:
    """The outcome of an input, a value or an error without the numbers in its message, and whether it is allowed."""
    start = time.monotonic()
    try:
        PARSERS[parser](data)
        said, allowed = "a value", True
    except Exception as error:
        said = f"{type(error).__name__}: {VALUES.sub('_', str(error))[:60]}"
        allowed = isinstance(error, qvec.QvecError)
    taken = time.monotonic() - start
    return (said, allowed) if taken < SLOW else (f"takes {taken:.0f} s", False)


def try_chunk(parser: str, seeds: Seeds, number: int) -> str:
    """Make and try a hundred inputs. Returns JSON: for each outcome its first input and whether it is allowed."""
    chance, found = random.Random(number), {}
    for _ in range(CHUNK):
        data = chance.randbytes(chance.randrange(40)) if chance.random() < 0.1 else chance.choice(seeds[parser])
        data = mutated(data, chance)
        said, allowed = outcome(parser, data)
        found.setdefault(said, (base64.b64encode(data).decode(), allowed))
    return json.dumps(found)


# --- the corpus ---


def kept(parser: str, folder: Path = CORPUS) -> dict[str, bytes]:
    """Corpus of a parser: inputs by outcome."""
    path = folder / f"{parser.replace(' ', '-')}.json"
    lines = json.loads(path.read_text()) if path.exists() else {}
    return {said: base64.b64decode(data) for said, data in lines.items()}


def keep(parser: str, inputs: dict[str, bytes], folder: Path = CORPUS) -> None:
    folder.mkdir(exist_ok=True)
    lines = {said: base64.b64encode(data).decode() for said, data in sorted(inputs.items())}
    (folder / f"{parser.replace(' ', '-')}.json").write_text(json.dumps(lines, indent=1) + "\n")


def seeds_of(path: Path) -> Seeds:
    """Inputs to mutate: parts of a sound file, and the corpus."""
    with qvec.open(path, "r") as db, db._store.read() as snap:
        plain = {what: records.pack(snap.record(*key)) for what, key in records_of(snap).items()}
        state = records.pack(encode(snap.state))
        bitmaps = [bytes(value) for _, value in snap.entries(b"\0", b"\xff" * 400)]
        exported = db.export_calibration(format="msgpack")
    assert isinstance(exported, bytes)
    own = {
        "record": [*plain.values(), state], "state": [state], "bitmap": bitmaps, "quantizer": [plain["quantizer"]],
        "curves": [plain["curves"]], "drift": [plain["drift"]], "export": [exported],
    }  # fmt: skip
    return {parser: own[parser] + list(kept(parser).values()) for parser in PARSERS}


# --- the run ---


def run(job: Job) -> Figures:
    figures, chance = Figures("R7", "random content of files and random data for the parsers"), random.Random(job.seed)
    files = {**job.__dict__, "only": tuple(set(job.only) - set(PARSERS))}
    names = job.chosen((*COLLECTIONS, *PARSERS))
    collections = [name for name in prepare(Job(**files)) if name in names]
    cases = [random_case(chance.choice(collections), chance) for _ in range(job.amount(FILES) if collections else 0)]
    figures.amounts["failing files"] = len(list(check_all(figures, job.folder, cases, scramble)))
    seeds = seeds_of(base(job.folder, "graph"))
    for parser in PARSERS:
        if parser in names:
            _replay(parser, figures)
            _fuzz(parser, seeds, -(-job.amount(INPUTS) // CHUNK // len(PARSERS)), chance, job, figures)
    figures.amounts["peak MiB of a child"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    return figures


def _replay(parser: str, figures: Figures) -> None:
    inputs = list(kept(parser).values())
    for data, verdict in zip(inputs, each(inputs, lambda data: _verdict(parser, data), HANG), strict=True):
        figures.count("inputs of the corpus")
        if verdict:
            figures.fail(f"{parser}, {data!r}: {verdict}")


def _verdict(parser: str, data: bytes) -> str:
    said, allowed = outcome(parser, data)
    return "" if allowed else said


def _fuzz(parser: str, seeds: Seeds, chunks: int, chance: random.Random, job: Job, figures: Figures) -> None:
    known: dict[str, bytes] = kept(parser)
    numbers, before = [chance.randrange(2**62) for _ in range(chunks)], len(known)
    for number, verdict in zip(numbers, each(numbers, lambda n: try_chunk(parser, seeds, n), HANG), strict=True):
        figures.count("inputs of parsers", CHUNK)
        if not verdict.startswith("{"):
            figures.fail(f"{parser}, chunk {number}: {verdict}")
            continue
        for said, (text, allowed) in json.loads(verdict).items():
            data = base64.b64decode(text)
            if not allowed:
                figures.fail(f"{parser}, {data!r}: {said}")
            if said not in known and len(data) <= LONGEST:
                known[said] = data
    figures.count("new in the corpus", len(known) - before)
    if job.scale == "nightly" and len(known) > before:
        keep(parser, known)
