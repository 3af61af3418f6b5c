"""A server of the Model Context Protocol over one collection (extra ``mcp``), for agents: ``qvec mcp STORE``.

Its tools search, read and, unless it is read-only, change the collection. Results are JSON as of
:mod:`qvec.common.plain_json`. Calls and results are limited (:class:`Limits`); what is beyond a limit is an error that
names the limit, as is any error of the collection.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from qvec.collection.collection import Collection
from qvec.common.errors import InputError, QvecError, ReplacedError
from qvec.common.plain_json import plain_json, to_json
from qvec.filters.schema import to_plain_declared
from qvec.schema.validation import check_count

INSTRUCTIONS = """\
A vector database of records. A record has an id, a vector and a payload, which is a JSON object. Call describe first:
it names the fields of payloads that filters (where) can use. A filter is a JSON object such as
{"lang": "en", "year": {"$gte": 2020}}; operators are $eq $ne $gt $gte $lt $lte $in $nin $exists $and $or $not.
"""


@dataclass(frozen=True)
class Limits:
    """Limits of one call: ``results`` returned, ``rows`` added or deleted by id, and ``bytes`` of the result's JSON."""

    results: int = 100
    rows: int = 1000
    bytes: int = 1 << 20

    def __post_init__(self) -> None:
        for name in ("results", "rows", "bytes"):
            check_count(name, getattr(self, name), 1, 1 << 30)


class Tools:
    """The tools over one collection. Arguments and results are plain JSON."""

    def __init__(self, db: Collection, limits: Limits) -> None:
        self._db, self._limits = db, limits

    def describe(self) -> dict[str, Any]:
        """Describe the collection: number of records, declared fields, metric, dimension, and ways to search."""
        stats = self._db.stats()
        fields = {name: to_plain_declared(kind) for name, kind in self._db.declarations.items()}
        texts = [name for name, kind in self._db.fields.items() if kind == "text"]
        return {
            "count": stats.count,
            "dim": stats.dim,
            "metric": stats.metric,
            "ids": stats.ids,
            "model": stats.model,
            "fields": fields,
            "text_search": texts,
            "embeds_text": self._db.embeds_text,
            "mode": self._db.mode,
            "limits": {"results": self._limits.results, "rows": self._limits.rows, "bytes": self._limits.bytes},
        }

    def search(
        self,
        text: str | None = None,
        vector: list[float] | None = None,
        k: int = 10,
        where: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Find the k best records for a text, or for a vector; the best first.

        A text is embedded if the server embeds texts, and searched for in the text fields. where: a filter.
        """
        self._check_results("k", k)
        if (text is None) == (vector is None):
            raise InputError("give either text or vector")
        options: dict[str, Any] = {"k": k, "where": where}
        if vector is not None:
            return self._db.search(vector, **options).to_list()
        has_text_field = "text" in self._db.fields.values()
        if not (has_text_field or self._db.embeds_text):
            raise InputError("this collection has no text field, and the server embeds no texts: give a vector")
        options |= {"text": text} if has_text_field else {}
        found: Any = self._db.search(text if self._db.embeds_text else None, **options)
        return list(found.to_list())

    def get(
        self,
        ids: list[int | str] | None = None,
        where: dict[str, Any] | None = None,
        limit: int | None = None,
        offset: int = 0,
        order_by: str | None = None,
        descending: bool = False,
        vectors: bool = False,
    ) -> list[dict[str, Any]]:
        """Return records by id, or the records that match a filter, in the order of a field if order_by names one.

        Ids that are not stored are left out. vectors: whether to return vectors, too.
        """
        if ids is not None:
            if where is not None or limit is not None:
                raise InputError("where and limit do not go with ids")
            self._check_results("the number of ids", len(ids))
            records = self._db.get(ids, missing="ignore")
        else:
            most = self._limits.results if limit is None else self._check_results("limit", limit)
            order: Any = (order_by, "desc") if descending and order_by is not None else order_by
            records = self._db.get(where=where or {}, limit=most, offset=offset, order_by=order)
        rows = zip(records.ids.tolist(), records.vectors, records.payloads, strict=True)
        extra: Callable[[Any], dict[str, Any]] = lambda vector: {"vector": vector.tolist()} if vectors else {}  # noqa: E731
        return [{"id": id, **extra(vector), "payload": payload} for id, vector, payload in rows]

    def count(self, where: dict[str, Any] | None = None) -> int:
        """Return the number of records, or of those that match a filter."""
        return self._db.count(where)

    def facets(self, field: str, where: dict[str, Any] | None = None, limit: int | None = None) -> list[dict[str, Any]]:
        """Count the records by value of a declared field, the most frequent values first."""
        most = self._limits.results if limit is None else self._check_results("limit", limit)
        found = self._db.facets(field, where=where, limit=most)
        return [{"value": value, "count": count} for value, count in found.items()]

    def add(
        self,
        texts: list[str] | None = None,
        vectors: list[list[float]] | None = None,
        ids: list[int | str] | None = None,
        payloads: list[dict[str, Any] | None] | None = None,
        replace: bool = False,
    ) -> dict[str, Any]:
        """Add records with vectors, or with texts if the server embeds texts. Returns their ids.

        ids: one for each record; without ids, records are numbered. replace: replace records whose ids are stored
        already, instead of an error. All records are added, or none.
        """
        given = texts if vectors is None else vectors
        if given is None or (texts is not None and vectors is not None):
            raise InputError("give either texts or vectors")
        self._check_rows("the number of records", len(given))
        conflict: Any = "replace" if replace else "error"
        made = self._db.add(vectors, ids, payloads, texts=texts, on_conflict=conflict)
        return {"ids": made.ids.tolist(), "added": made.added, "replaced": made.replaced}

    def delete(self, ids: list[int | str] | None = None, where: dict[str, Any] | None = None) -> dict[str, int]:
        """Delete records by id, or those that match a filter. Returns how many were stored."""
        if ids is not None:
            self._check_rows("the number of ids", len(ids))
        return {"deleted": self._db.delete(ids, where=where)}

    def _check_results(self, name: str, value: int) -> int:
        if not 1 <= value <= self._limits.results:
            raise InputError(f"{name} is {value}; it is from 1 to {self._limits.results}")
        return value

    def _check_rows(self, name: str, value: int) -> None:
        if value > self._limits.rows:
            raise InputError(f"{name} is {value}; the limit of one call is {self._limits.rows}")


READING, WRITING = ("describe", "search", "get", "count", "facets"), ("add", "delete")


def make_server(db: Collection, *, read_only: bool = False, limits: Limits | None = None) -> MCPServer:
    """Return a server with the tools over a collection. read_only: without the tools that change it."""
    allowed = limits or Limits()
    server = MCPServer("qvec", instructions=INSTRUCTIONS, log_level="WARNING")
    tools, reopen = Tools(db, allowed), _Reopening(db)
    for name in READING if read_only or db.mode == "r" else (*READING, *WRITING):
        server.add_tool(_tool(getattr(tools, name), reopen, allowed), name, structured_output=False)
    return server


class _Reopening:
    """Moves a handle to the file that its path refers to now: `reembed` of another process replaces it."""

    def __init__(self, db: Collection) -> None:
        self._db, self._lock = db, threading.Lock()

    def __call__(self) -> None:
        with self._lock:  # the tools of a server may run in several threads
            self._db.reopen()


def _tool(method: Callable[..., Any], reopen: Callable[[], None], limits: Limits) -> Callable[..., str]:
    """Return a function that a server calls: its result is JSON, and its errors are one line.

    Each call uses the file that the path refers to when it begins, and begins again if that is replaced meanwhile.
    """

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> str:
        try:
            reopen()
            try:
                made = method(*args, **kwargs)
            except ReplacedError:
                reopen()
                made = method(*args, **kwargs)
            text = to_json(plain_json(made))
        except QvecError as error:
            raise ToolError(" ".join(str(error).split())) from error
        if (size := len(text.encode())) > limits.bytes:
            raise ToolError(f"the result takes {size} bytes; the limit is {limits.bytes}: ask for fewer records")
        return text

    call.__annotations__ = {**method.__annotations__, "return": "str"}
    return call
