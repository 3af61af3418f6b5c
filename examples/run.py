"""Execute the notebooks: python examples/run.py [--write] [NAME ...]

Each runs in a new kernel and a folder of its own. Exit code 1: a cell failed. --write stores the outputs in the
notebooks.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

HERE = Path(__file__).parent


def execute(file: Path, write: bool) -> None:
    """Execute a notebook; CellExecutionError if a cell fails."""
    notebook = nbformat.read(file, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=False)
        client.execute(cwd=folder)
    if write:
        del notebook.metadata["language_info"]["version"]  # not that of the machine that ran it last
        nbformat.write(notebook, file)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="notebooks (default: all)")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    files = [HERE / f"{Path(name).stem}.ipynb" for name in args.names] or sorted(HERE.glob("*.ipynb"))
    failed = 0
    for file in files:
        start = time.monotonic()
        try:
            execute(file, args.write)
        except CellExecutionError as error:
            failed += 1
            print(f"{file.name}: failed\n{error}", file=sys.stderr)
        else:
            print(f"{file.name}: {time.monotonic() - start:.1f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
