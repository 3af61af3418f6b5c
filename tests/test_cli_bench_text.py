"""``qvec bench --text``: full-text indexes on the texts of a folder."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.text_model import bm25, random_texts
from qvec.bench.text import load_texts
from qvec.bench.text_contestants import CONTESTANTS, PEERS, is_installed
from qvec.cli import main

TEXTS = random_texts(300, 600, 15, 4)
ASKED = [words[:3] for words in TEXTS[::15]]  # FTS5 gives terms of more than half of the rows no weight


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(tmp_path)
    Path("set").mkdir()
    with gzip.open("set/passages.jsonl.gz", "wt") as file:
        file.write("\n".join(json.dumps({"text": " ".join(words)}) for words in TEXTS))
    Path("set/queries.jsonl").write_text("\n".join(json.dumps({"question": " ".join(words)}) for words in ASKED))

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(["bench", *arguments])
        output = capsys.readouterr()
        return code, output.out, output.err

    return call


def test_text_indexes_are_compared(run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = run("set", "--text", "--peers", "fts5", "--json", "-k", "5")
    found = json.loads(out)
    assert (code, found["rows"], found["k"]) == (0, 300, 5)
    own, other = found["entries"]
    assert (own["contestant"], other["contestant"], own["same"]) == ("qvec", "fts5", 1)
    assert other["same"] > 0.5
    assert all(entry[name] > 0 for entry in (own, other) for name in ("rows_per_s", "bytes", "queries_per_s"))
    code, out, _ = run("set", "--text", "--peers", "fts5", "--rows", "400", "--max-queries", "5")
    assert "400 texts, 5 queries, the best 10" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("name", CONTESTANTS)
def test_a_contestant_finds_the_best_texts(name: str, tmp_path: Path) -> None:
    if name in PEERS and not is_installed(name):
        pytest.skip(f"{name} is not installed")
    search, size = CONTESTANTS[name]([" ".join(words) for words in TEXTS], tmp_path)
    assert size > 0
    for words in ASKED[:5]:
        scores = bm25(dict(enumerate(TEXTS)), words)
        best = sorted(scores.values(), reverse=True)[:10]
        found = search(words, 10)
        assert sum(scores.get(row, 0) >= best[-1] * 0.9 for row in found) >= min(len(best), 8)  # others round lengths


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("set", "--text", "--peers", "lucene"), "there is no 'lucene'"),
        (("set", "--text", "--metric", "l2"), "--metric does not go with --text"),
        (("elsewhere", "--text"), "passages.jsonl.gz does not exist"),
    ],
)
def test_wrong_arguments_are_refused(
    run: Callable[..., tuple[int, str, str]], arguments: tuple[str, ...], message: str
) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert message in err


def test_lines_without_a_text_are_refused(run: Callable[..., tuple[int, str, str]]) -> None:
    Path("set/queries.jsonl").write_text('{"a": 1}\n')
    assert "without text or question or query" in run("set", "--text")[2]
    Path("set/queries.jsonl").write_text("{")
    assert "is not JSON lines" in run("set", "--text")[2]
    Path("set/queries.jsonl").write_text('{"text": "..."}\n')
    assert "0 queries with words" in run("set", "--text")[2]


def test_more_texts_are_made_of_sentences(run: Callable[..., tuple[int, str, str]]) -> None:
    texts, queries = load_texts(Path("set"), 350, 7)
    assert len(texts) == 350
    assert set(" ".join(texts[300:]).split()) <= {word for words in TEXTS for word in words}
    assert len(queries) == 7
