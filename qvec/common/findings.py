"""What a check of a collection finds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self


class Finding(str):
    """A sentence about stored data.

    ``kind``: "damage" if stored data is wrong, so that ``repair()`` or a backup is needed; "advice" if all data is
    sound, and ``optimize()`` would make searches better.
    """

    kind: Literal["damage", "advice"]

    def __new__(cls, text: str, kind: Literal["damage", "advice"] = "damage") -> Self:
        made = super().__new__(cls, text)
        made.kind = kind
        return made


def damages(findings: Iterable[Finding]) -> list[Finding]:
    """The findings of kind "damage"."""
    return [finding for finding in findings if finding.kind == "damage"]
