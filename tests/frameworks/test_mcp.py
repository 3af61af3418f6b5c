"""The server for agents, through the client of the official SDK over standard input and output."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qvec

pytest.importorskip("mcp")
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

DIM = 8
X = np.random.default_rng(5).normal(size=(200, DIM)).astype(np.float32)
ENV = {**os.environ, "PYTHONPATH": str(Path(qvec.__file__).parent.parent)}


@pytest.fixture
def store(path: Path) -> Path:
    fields: dict[str, Any] = {"lang": "keyword", "year": "int", "text": "text"}
    with qvec.create(path, DIM, metric="l2", fields=fields) as db:
        more = {"at": datetime(2024, 5, 1, tzinfo=UTC), "data": b"\x00\xff", "x": float("nan")}
        held = [
            {"lang": ["de", "en"][i % 2], "year": 2000 + i % 7, "text": f"word{i} common", **more} for i in range(200)
        ]
        db.add(X, payloads=held)
    return path


Work = Callable[[ClientSession], Awaitable[Any]]


def with_server(store: Path, work: Work, *options: str) -> Any:
    """Start a server for a store, and use it through a client."""

    async def main() -> Any:
        command = StdioServerParameters(
            command=sys.executable, args=["-m", "qvec", "mcp", str(store), *options], env=ENV
        )
        async with stdio_client(command) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            return await work(session)

    return asyncio.run(main())


async def call(session: ClientSession, name: str, **arguments: Any) -> Any:
    """The result of a tool, or the text of its error."""
    done = await session.call_tool(name, arguments)
    (part,) = done.content
    if done.is_error:
        return f"error: {part.text}"  # type: ignore[union-attr]

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(part.text, parse_constant=refuse)  # type: ignore[union-attr]


def test_every_tool_does_what_the_library_does(store: Path) -> None:
    async def work(session: ClientSession) -> None:
        names = [tool.name for tool in (await session.list_tools()).tools]
        assert names == ["describe", "search", "get", "count", "facets", "add", "delete"]
        about = await call(session, "describe")
        assert (about["count"], about["dim"], about["metric"], about["text_search"]) == (200, DIM, "l2", ["text"])
        assert about["fields"]["year"] == "int"
        hits = await call(session, "search", vector=X[7].tolist(), k=3)
        assert [hit["id"] for hit in hits] == expected(store, X[7], 3)
        more = {"at": "2024-05-01T00:00:00+00:00", "data": "AP8=", "x": None}
        assert hits[0]["payload"] == {"lang": "en", "year": 2000, "text": "word7 common", **more}
        hits = await call(session, "search", vector=X[7].tolist(), k=3, where={"lang": "de"})
        assert all(hit["id"] % 2 == 0 for hit in hits)
        (hit,) = await call(session, "search", text="word9", k=5)
        assert hit["id"] == 9
        (record,) = await call(session, "get", ids=[9, 9999], vectors=True)
        np.testing.assert_allclose(record["vector"], X[9], rtol=1e-6)
        rows = await call(session, "get", where={"year": 2003}, limit=4, order_by="year", descending=True)
        assert [row["payload"]["year"] for row in rows] == [2003] * 4
        assert await call(session, "count") == 200
        assert await call(session, "count", where={"year": {"$gte": 2005}}) == sum(i % 7 >= 5 for i in range(200))
        assert await call(session, "facets", field="lang") == [
            {"value": "de", "count": 100},
            {"value": "en", "count": 100},
        ]
        made = await call(session, "add", vectors=X[:2].tolist(), payloads=[{"lang": "fr"}, None])
        assert made == {"ids": [200, 201], "added": 2, "replaced": 0}
        made = await call(session, "add", vectors=X[:1].tolist(), ids=[200], replace=True)
        assert (made["added"], made["replaced"]) == (0, 1)
        assert await call(session, "delete", ids=[200, 201, 5000]) == {"deleted": 2}
        assert await call(session, "delete", where={"year": 2001}) == {"deleted": sum(i % 7 == 1 for i in range(200))}

    with_server(store, work)
    with qvec.open(store, "r") as db:
        assert db.verify() == []


def test_a_server_takes_a_budget_of_memory(store: Path) -> None:
    async def work(session: ClientSession) -> list[int]:
        return [hit["id"] for hit in await call(session, "search", vector=X[7].tolist(), k=3)]

    assert with_server(store, work, "--memory", "2000") == expected(store, X[7], 3)
    done = subprocess.run(
        [sys.executable, "-m", "qvec", "mcp", str(store), "--memory", "0"],
        env=ENV,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "memory must be one of mmap, index, ram, or a number of bytes" in done.stderr


def expected(store: Path, query: Any, k: int) -> list[int]:
    with qvec.open(store, "r") as db:
        ids: list[int] = db.search(query, k).ids.tolist()
        return ids


def test_every_error_names_what_is_wrong(store: Path) -> None:
    async def work(session: ClientSession) -> None:
        for name, arguments, message in [
            ("search", {}, "give either text or vector"),
            ("search", {"vector": [1.0] * DIM, "text": "a"}, "give either text or vector"),
            ("search", {"vector": [1.0]}, "must have shape"),
            ("search", {"vector": [1.0] * DIM, "k": 101}, "k is 101; it is from 1 to 100"),
            ("search", {"vector": [1.0] * DIM, "k": 0}, "k is 0"),
            ("search", {"vector": [1.0] * DIM, "where": {"nope": 1}}, "nope"),
            ("search", {"vector": [1.0] * DIM, "where": {"year": {"$near": 1}}}, "$near"),
            ("search", {"vector": "x"}, "vector"),
            ("get", {"limit": 1000}, "limit is 1000"),
            ("get", {"ids": [1], "where": {}}, "where and limit do not go with ids"),
            ("get", {"ids": ["a"]}, "integers"),
            ("get", {"ids": list(range(101))}, "the number of ids is 101"),
            ("get", {"order_by": "text"}, "'text' is a text field"),
            ("count", {"where": {"year": "x"}}, "year"),
            ("facets", {"field": "nope"}, "facets names a declared field, got 'nope'"),
            ("facets", {}, "field"),
            ("add", {}, "give either texts or vectors"),
            ("add", {"texts": ["a"]}, "embed="),
            ("add", {"vectors": [[1.0]]}, "must have shape"),
            ("add", {"vectors": [[0.0] * DIM] * 1001}, "the number of records is 1001; the limit of one call is 1000"),
            ("add", {"vectors": [[1.0] * DIM], "ids": [7]}, "is stored already"),
            ("add", {"vectors": [[1.0] * DIM], "payloads": [{"year": "x"}]}, "year"),
            ("delete", {}, "give the ids to delete, or a filter"),
            ("delete", {"where": {}}, "where is empty"),
            ("delete", {"ids": list(range(1001))}, "the number of ids is 1001"),
        ]:
            found = await call(session, name, **arguments)
            assert isinstance(found, str), (name, arguments)
            assert found.startswith("error: "), (name, found)
            assert message in found, (name, arguments, found)
        assert await call(session, "count") == 200

    with_server(store, work)


def test_a_read_only_server_has_no_tools_that_write(store: Path) -> None:
    async def work(session: ClientSession) -> None:
        names = [tool.name for tool in (await session.list_tools()).tools]
        assert names == ["describe", "search", "get", "count", "facets"]
        assert "error" in await call(session, "delete", ids=[1])
        assert (await call(session, "describe"))["mode"] == "r"

    with_server(store, work, "--read-only")


def test_results_and_calls_have_the_limits_of_the_command(store: Path) -> None:
    async def work(session: ClientSession) -> None:
        assert "k is 6; it is from 1 to 5" in await call(session, "search", vector=X[0].tolist(), k=6)
        assert "the limit of one call is 2" in await call(session, "add", vectors=X[:3].tolist())
        assert "the limit is 300: ask for fewer records" in await call(session, "get", limit=5)
        assert len(await call(session, "get", limit=1)) == 1

    with_server(store, work, "--max-results", "5", "--max-rows", "2", "--max-bytes", "300")


def test_two_agents_and_a_command_line_share_a_store(store: Path) -> None:
    """Each adds, searches and deletes at the same time; nothing is lost, and no call fails."""
    rounds = 15

    async def agent(number: int) -> None:
        command = StdioServerParameters(command=sys.executable, args=["-m", "qvec", "mcp", str(store)], env=ENV)
        async with stdio_client(command) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            for i in range(rounds):
                id = 1000 * number + i
                made = await call(session, "add", vectors=[X[i].tolist()], ids=[id], payloads=[{"lang": f"a{number}"}])
                assert made == {"ids": [id], "added": 1, "replaced": 0}
                hits = await call(session, "search", vector=X[i].tolist(), k=20)
                assert id in [hit["id"] for hit in hits]
                if i % 3 == 0:
                    assert await call(session, "delete", ids=[id]) == {"deleted": 1}

    async def shell() -> None:
        for i in range(6):
            lines = json.dumps({"id": 9000 + i, "vector": X[i].tolist()}) + "\n"
            arguments = [sys.executable, "-m", "qvec", "import", str(store), "-"]
            done = await asyncio.to_thread(
                subprocess.run, arguments, input=lines, capture_output=True, text=True, env=ENV, check=False
            )
            assert (done.returncode, "1 added" in done.stdout) == (0, True), done.stderr

    async def main() -> None:
        await asyncio.gather(agent(1), agent(2), shell())

    asyncio.run(main())
    with qvec.open(store, "r") as db:
        kept = [i for i in range(rounds) if i % 3]
        assert sorted(i for i in db.ids().tolist() if i >= 1000) == [
            *(1000 + i for i in kept), *(2000 + i for i in kept), *(9000 + i for i in range(6))
        ]  # fmt: skip
        assert db.verify() == []


def test_a_server_follows_the_store_to_another_embedding_model(store: Path) -> None:
    """Also one that only reads: it would see the replaced file for ever."""

    def embed(texts: list[str]) -> Any:
        return np.array([[len(text), text.count("1"), 1.0] for text in texts], np.float32)

    async def work(session: ClientSession) -> None:
        assert (await call(session, "describe"))["dim"] == DIM
        with qvec.open(store) as db:
            db.reembed(embed, dim=3, model="lengths")
            about = await call(session, "describe")
            assert (about["dim"], about["model"], about["count"]) == (3, "lengths", 200)
            hits = await call(session, "search", vector=embed(["word111 common"])[0].tolist(), k=1)
            assert [hit["id"] for hit in hits] == [111]
            if about["mode"] == "rw":
                made = await call(session, "add", vectors=[[1.0, 2.0, 3.0]])
                assert (made["added"], len(db)) == (1, 201)
                await call(session, "delete", ids=made["ids"])
            db.undo_reembed()
        assert (await call(session, "describe"))["dim"] == DIM

    with_server(store, work)
    with_server(store, work, "--read-only")
