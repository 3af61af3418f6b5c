"""The reliability suite: a table of its runs by number, each with a short and a nightly form.

R1 to R7, R10 to R12, R15, R21 to R26 are functions that return figures; the others are test files that pytest runs. The
numbers are those of docs/reliability.md.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

from child import run as run_in_child
from figures import Figures, Job, Scale

ROOT = Path(__file__).parents[2]
HOURS = 3600.0
REPORTED = 4000  # characters of a failed test: the sequence of calls, and the seeds that reproduce it
ENGINES = {
    "R1": ("kills", "run"),
    "R2": ("steps", "run"),
    "R3": ("power", "run"),
    "R4": ("damages", "run_cuts"),
    "R5": ("damages", "run_damages"),
    "R6": ("crafted_fields", "run"),
    "R7": ("fuzz", "run"),
    "R10": ("concurrency", "run_threads"),
    "R11": ("concurrency", "run_processes"),
    "R12": ("concurrency", "run_snapshot"),
    "R15": ("churn", "run"),
    "R21": ("interrupts", "run"),
    "R22": ("replaced", "run"),
    "R23": ("many_writers", "run"),
    "R24": ("interleavings", "run"),
    "R25": ("interleavings", "run_close"),
    "R26": ("lock_times", "run"),
}
TESTS = {
    "R8": ("disk full, file-size limits, address space", ["tests/reliability/test_disk_full.py"]),
    "R9": ("lifetime of handles, views and results", ["tests/reliability/test_lifetime.py"]),
    "R13": (
        "fork, spawn, forkserver and worker processes",
        ["tests/reliability/test_fork.py", "tests/reliability/test_fork_threads.py"],
    ),
    "R14": ("random calls against a float64 model", ["tests/test_stateful.py::TestLongSequences"]),
    "R16": (
        "kernels at every SIMD level, on guard pages",
        ["tests/test_kernels_memory.py", "tests/test_kernels_score.py", "tests/test_kernels_encode.py",
         "tests/test_kernels_edge.py", "tests/test_kernels_fastscan.py", "tests/test_kernels_bitpack.py"],
    ),
    "R18": (
        "hostile calls and files",
        ["tests/test_hostile.py", "tests/test_hostile_files.py", "tests/test_crafted_files.py"],
    ),
    "R19": ("golden files of the format", ["tests/test_golden.py"]),
    "R20": (
        "properties of quantizers",
        ["tests/test_quantizer_properties.py", "tests/test_quantizers.py", "tests/test_calibration.py",
         "tests/test_calibrators.py"],
    ),
}  # fmt: skip
NIGHTLY = {"QVEC_EXAMPLES": "5000", "QVEC_STEPS": "100", "QVEC_PROPERTIES": "2500", "QVEC_SECONDS": "600"}
EXAMPLES_OF = {"R14": "QVEC_EXAMPLES", "R20": "QVEC_PROPERTIES"}  # the variable that sets their number
PART = {"R14": 250}  # examples per process: a failure is reported when its process ends
NAMES = sorted({*ENGINES, *TESTS, "R17"}, key=lambda name: int(name[1:]))


def names(scale: Scale) -> list[str]:
    """All numbers; in the short form without the sanitizers, which take half an hour."""
    return [name for name in NAMES if scale == "nightly" or name != "R17"]


def run(name: str, job: Job) -> Figures:
    """Run one number in processes of its own. Raises ValueError for a choice that it does not have."""
    if name not in ENGINES and (job.only or (job.rounds and name not in EXAMPLES_OF)):
        raise ValueError(f"{name} has no parts to choose from")
    start = time.perf_counter()
    if name in ENGINES:
        figures = run_in_child(_engine, name, job, deadline=12 * HOURS)
    elif name == "R17":
        figures = _sanitized()
    else:
        figures = _tests(name, job)
    figures.amounts["seconds"] = round(time.perf_counter() - start, 1)
    return figures  # type: ignore[no-any-return]


def _engine(name: str, job: Job) -> Figures:
    module, function = ENGINES[name]
    found: Figures = getattr(__import__(module), function)(job)
    return found


def _tests(name: str, job: Job) -> Figures:
    """Run and count tests. Those with many examples run in several processes, each with its own seed."""
    what, files = TESTS[name]
    figures, nightly = Figures(name, what), job.scale == "nightly"
    settings = {"TMPDIR": str(job.folder)} | (NIGHTLY if nightly else {})
    report = job.folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *files]
    command += ["-m", "", "--timeout", "7200"] if nightly else ["-m", "not nightly"]
    setting, chance = EXAMPLES_OF.get(name), random.Random(job.seed)
    for examples in _parts(job.rounds or (int(NIGHTLY[setting]) if nightly and setting else 0), PART.get(name)):
        seed = str(chance.randrange(2**31))
        if setting and examples:
            settings |= {setting: str(examples), "QVEC_SEED": seed}
            figures.count("examples", examples)
        _counted(figures, report, [*command, f"--hypothesis-seed={seed}"], settings)
    return figures


def _parts(amount: int, part: int | None) -> list[int]:
    """Split an amount into parts; 0 stands for the default amount of the tests."""
    if not part or amount <= part:
        return [amount]
    return [min(part, amount - done) for done in range(0, amount, part)]


def _sanitized() -> Figures:
    """The whole suite under AddressSanitizer and UndefinedBehaviorSanitizer."""
    figures = Figures("R17", "all tests with AddressSanitizer and UBSan in the kernels")
    said = _counted(figures, ROOT / "build/sanitize/report.xml", ["make", "sanitize"], {})
    figures.amounts["reports"] = said.count("runtime error:") + said.count("ERROR: AddressSanitizer")
    return figures


def _counted(figures: Figures, report: Path, command: list[str], settings: dict[str, str]) -> str:
    """Run tests that write a report, count them, and note failures. Returns their output."""
    report.unlink(missing_ok=True)
    done = subprocess.run(command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, check=False)
    failed = len(figures.failures)
    if report.exists():
        suite = ElementTree.parse(report).getroot()[0]
        for kind in ("tests", "skipped"):
            figures.count(kind, int(suite.attrib[kind]))
        for case in suite.iter("testcase"):
            for problem in (*case.iter("failure"), *case.iter("error")):
                figures.fail(f"{case.attrib['classname']}.{case.attrib['name']}: {(problem.text or '')[-REPORTED:]}")
    if done.returncode and len(figures.failures) == failed:
        figures.fail(f"exit code {done.returncode}: {(done.stdout + done.stderr)[-500:]}")
    return done.stdout + done.stderr
