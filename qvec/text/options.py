"""Declarations of text and sparse fields."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from qvec.common.errors import InputError
from qvec.common.types import check_choice, check_flag, check_number
from qvec.schema.postings import MAX_STOP_WORDS, SparseOptions, TextOptions
from qvec.text.analysis import analyzer_version, stop_words_of

MAX_K1 = 1000.0


@dataclass(frozen=True)
class Text:
    """A field of full text, searched by ``search(text=)`` and ``$match``; ``fields={"body": qvec.Text(...)}``.

    analyzer: "unicode" (words of Unicode's UAX 29, pairs of characters in Chinese, Japanese and Korean; NFKC, case
    folding) or the name of a function of :func:`qvec.register_analyzer`. stemmer: a Snowball language such as "english"
    (extra ``text``), or None. stop_words: words to leave out, or "english". k1, b: the constants of BM25. positions:
    parts of a query in double quotes are phrases; positions are those in the stored text.
    A value is a string of at most 1 MiB, or a list of tokens, which are stored unchanged.
    """

    analyzer: str = "unicode"
    stemmer: str | None = None
    stop_words: str | Iterable[str] = ()
    k1: float = 1.2
    b: float = 0.75
    positions: bool = False

    def options(self) -> TextOptions:
        """The options as the file records them; InputError names a wrong one."""
        check_number("k1", self.k1, 0.0, MAX_K1)
        check_number("b", self.b, 0.0, 1.0)
        words = stop_words_of(self.stop_words)
        if len(words) > MAX_STOP_WORDS:
            raise InputError(f"stop_words has {len(words)} words; the limit is {MAX_STOP_WORDS}")
        version = analyzer_version(self.analyzer, self.stemmer)
        check_flag("positions", self.positions)
        numbers = float(self.k1), float(self.b)
        return TextOptions("text", self.analyzer, version, self.stemmer, words, *numbers, self.positions)


@dataclass(frozen=True)
class Sparse:
    """A field of sparse vectors, searched by ``search(sparse=)``; ``fields={"splade": qvec.Sparse()}``.

    originals: how payloads store weights: "f16", with which hits are scored again, or "u8", in half of the bytes.
    """

    originals: str = "f16"

    def options(self) -> SparseOptions:
        """The options as the file records them; InputError names a wrong one."""
        check_choice("originals", self.originals, ("f16", "u8"))
        return SparseOptions("sparse", self.originals)  # type: ignore[arg-type]
