"""Instructions that the scoring kernels of each SIMD level need for a row, counted by QEMU.

    python benchmarks/count_instructions.py [--dim 384]

Debian's packages: gcc, gcc-aarch64-linux-gnu, qemu-user. Counts are of this machine's compilers, with the options of
setup.py. They are no times: the instructions of one level may take longer than those of another.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
KERNELS = HERE.parent / "qvec" / "kernels"
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O3", "-ffp-contract=off", "-fno-math-errno", "-w", f"-I{KERNELS}"]
MACHINES = {
    "x86_64": ("gcc", ("avx2",)),
    "aarch64": ("aarch64-linux-gnu-gcc", ("neon", "neon_dot", "neon_i8mm")),
}
KINDS = {"int8": "int8", "int4": "int4", "rabitq1": "1", "rabitq4": "4", "rabitq8": "8"}
GROUP, SHORT_RUN, LONG_RUN = 4, 100, 1100


def build(folder: Path, compiler: str) -> Path:
    """The program that scores rows."""
    sources = [HERE / "instructions" / "score.c", *sorted((KERNELS / "codec").glob("*.c"))]

    def compiled(source: Path) -> str:
        out = folder / f"{source.stem}.o"
        subprocess.run([compiler, *FLAGS, "-c", source, "-o", out], check=True)
        return str(out)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, sources))
    program = folder / "score"
    subprocess.run([compiler, "-static", *objects, "-lm", "-o", program], check=True)
    return program


def instructions(machine: str, plugin: Path, program: Path, *arguments: object) -> int:
    """The instructions of one run."""
    command = [f"qemu-{machine}", "-cpu", "max", "-plugin", plugin, program, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stderr.split()[-1])


def of_a_row(machine: str, plugin: Path, program: Path, kind: str, level: str, dim: int) -> float:
    """Instructions of one row: the difference of two runs, without what both do once."""
    few, many = (instructions(machine, plugin, program, kind, level, dim, n) for n in (SHORT_RUN, LONG_RUN))
    return (many - few) / (LONG_RUN - SHORT_RUN) / GROUP


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=384)
    dim = parser.parse_args().dim
    with tempfile.TemporaryDirectory() as work:
        plugin = Path(work) / "count.so"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", HERE / "instructions" / "plugin.c", "-o", plugin], check=True)
        found: dict[tuple[str, str], float] = {}
        levels = []
        for machine, (compiler, names) in MACHINES.items():
            folder = Path(work) / machine
            folder.mkdir()
            program = build(folder, compiler)
            levels += names
            for kind, argument in KINDS.items():
                for level in names:
                    found[kind, level] = of_a_row(machine, plugin, program, argument, level, dim)
    print(f"instructions per row of {dim} dimensions, and relative to neon")
    print(f"{'code':10}" + "".join(f"{level:>18}" for level in levels))
    for kind in KINDS:
        cells = [f"{found[kind, level]:9.0f} {found[kind, level] / found[kind, 'neon']:6.3f}x" for level in levels]
        print(f"{kind:10}" + "".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
