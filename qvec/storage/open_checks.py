"""Files that are refused before they are mapped: missing, foreign, truncated, or not to be trusted."""

from __future__ import annotations

from qvec.common.errors import CorruptError, LockedError
from qvec.storage import meta_page, pages

_TRIES = 5  # to read a file between two commits


def check(path: str) -> None:
    """Refuse, before it is mapped, a file that is missing, foreign or truncated."""
    facts = meta_page.inspect(path)
    if not facts.is_truncated:
        return
    # A commit may leave pages at the end of the file that it freed itself unwritten: not damage.
    problems = pages.structure_problems(path)
    if problems or _last_used(path, facts.psize) >= facts.size // facts.psize:
        raise CorruptError(f"{path} is truncated: {facts.size} bytes of {facts.n_pages * facts.psize}")


def _last_used(path: str, psize: int) -> int:
    """The last page that is in use: of values that take several, LMDB's own check looks at the first alone."""
    with open(path, "rb") as file:
        return pages.Pages(file.fileno(), psize).last_used()


def check_structure(path: str) -> None:
    """Refuse, before it is mapped, a file whose pages LMDB might trip over; LockedError while others write to it."""
    for _ in range(_TRIES):
        before = meta_page.inspect(path)
        problems = pages.structure_problems(path)
        if meta_page.inspect(path) == before:
            break
    else:
        raise LockedError(f"{path} changes while it is checked: untrusted=True is for files that nobody writes to")
    if problems:
        raise CorruptError(f"{path} is damaged: {problems[0]}; {len(problems)} problems in all")
