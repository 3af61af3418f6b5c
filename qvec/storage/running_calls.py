"""Names of running calls in other threads, for messages."""

from __future__ import annotations

import sys
import threading


def running_calls(store: object) -> list[str]:
    """For each other thread in a call of a collection over ``store``: the outermost method, and the thread's name."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = []
    for ident, frame in sys._current_frames().items():
        call, at = None, frame
        while ident != threading.get_ident() and at is not None:
            if getattr(at.f_locals.get("self"), "_store", None) is store and not at.f_code.co_name.startswith("_"):
                call = at.f_code.co_name
            at = at.f_back  # type: ignore[assignment]
        if call is not None:
            found.append(f"{call} in thread {names.get(ident, ident)}")
    return found
