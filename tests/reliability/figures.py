"""Figures of a run of the reliability suite: amounts and failures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Scale = Literal["short", "nightly"]
SCALE: Scale = "nightly" if os.environ.get("QVEC_SCALE") == "nightly" else "short"


@dataclass(frozen=True)
class Job:
    """A run to make. ``only``: the chosen workloads; ``rounds``: the number of each, regardless of the scale."""

    scale: Scale
    folder: Path
    seed: int
    only: tuple[str, ...] = ()
    rounds: int | None = None

    def amount(self, by_scale: Mapping[str, int]) -> int:
        """The amount of something to do."""
        return by_scale[self.scale] if self.rounds is None else self.rounds

    def chosen(self, workloads: Iterable[str]) -> list[str]:
        """The workloads to run. Raises ValueError for an unknown name."""
        names = list(workloads)
        if unknown := set(self.only) - set(names):
            raise ValueError(f"there is no workload {', '.join(sorted(unknown))}; there are: {', '.join(names)}")
        return [name for name in names if name in self.only] if self.only else names


@dataclass
class Figures:
    """``amounts``: counts and measurements; ``failures``: a description of each."""

    name: str
    what: str
    amounts: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def count(self, name: str, n: int = 1) -> None:
        """Add to an amount."""
        self.amounts[name] = self.amounts.get(name, 0) + n

    def fail(self, text: str) -> None:
        """Note a failure. The first hundred are described, the rest counted."""
        self.count("failures")
        if len(self.failures) < 100:
            self.failures.append(text)

    def write(self, path: Path, **facts: Any) -> None:
        """Add a JSON line to a file."""
        with path.open("a") as lines:
            lines.write(json.dumps({**facts, **asdict(self)}) + "\n")
