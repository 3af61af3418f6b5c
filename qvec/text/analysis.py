"""Analyzers: text to words, and words to terms.

A kernel finds the words of ASCII text. The expressions below find the words of other text, with the same result for
ASCII.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby, pairwise
from typing import Any, NamedTuple

from qvec._kernels import MAX_TERM_BYTES, split_ascii
from qvec.common.errors import InputError
from qvec.common.extras import require
from qvec.schema.postings import TextOptions

UNICODE, UNICODE_VERSION = "unicode", "1"
MAX_TEXT_BYTES = 1 << 20
MAX_VERSION = 200
ENGLISH = (
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in",
    "into", "is", "it", "no", "not", "of", "on", "or", "such", "that", "the", "their",
    "then", "there", "these", "they", "this", "to", "was", "will", "with",
)  # fmt: skip
"""The stop words of Lucene's EnglishAnalyzer."""

_CJK = "\u1100-\u11ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f"
_CJK += "\uac00-\ud7ff\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003fffd"
_HAS_CJK = re.compile(f"[{_CJK}]")
_MARK_BLOCKS = (0x300, 0x20000), (0xE0100, 0xE01F0)  # planes with marks
_NOT_ASCII_OR_WORD = re.compile(r"[^\w\x00-\x7f]")


class NamedAnalyzer(NamedTuple):
    """A function from text to words, and its version."""

    split: Callable[[str], Sequence[str]]
    version: str


_registered: dict[str, NamedAnalyzer] = {}


def register_analyzer(name: str, split: Callable[[str], Sequence[str]], version: str = "1") -> None:
    """Register a function that splits text into words, for ``qvec.Text(analyzer=name)``, in this process.

    The function must return the same words for the same text, also in later processes. A file records the name and the
    version; fields of another version are refused, since their terms may differ.
    """
    if not isinstance(name, str) or not name or len(name) > MAX_VERSION or name == UNICODE:
        raise InputError(f"an analyzer needs a name of 1 to {MAX_VERSION} characters other than {UNICODE!r}")
    if not callable(split):
        raise InputError(f"analyzer {name!r} must be a function, got {type(split).__name__}")
    if not isinstance(version, str) or not 0 < len(version) <= MAX_VERSION:
        raise InputError(f"analyzer {name!r}: version must be a string of 1 to {MAX_VERSION} characters")
    _registered[name] = NamedAnalyzer(split, version)


def analyzer_version(name: object, stemmer: object) -> str:
    """The version of an analyzer and a stemmer, as installed. Raises InputError if there is no such analyzer."""
    if name == UNICODE:
        version = UNICODE_VERSION
    elif isinstance(name, str) and name in _registered:
        version = _registered[name].version
    else:
        known = ", ".join((UNICODE, *sorted(_registered)))
        raise InputError(f"analyzer {name!r} is not registered (qvec.register_analyzer); there are: {known}")
    return version if stemmer is None else f"{version}, snowball {_stemmers(stemmer).version()}"


def stop_words_of(words: object) -> tuple[str, ...]:
    """Stop words, sorted, from a list of them or the name of one."""
    if words == "english":
        return tuple(sorted(ENGLISH))
    if isinstance(words, str) or not isinstance(words, Iterable):
        raise InputError(f"stop_words must be a list of words, or 'english', got {words!r}")
    listed = list(words)
    for word in listed:
        if not isinstance(word, str) or len(word.encode()) > MAX_TERM_BYTES:
            raise InputError(f"stop_words: {word!r} is not a string of at most {MAX_TERM_BYTES} bytes")
    return tuple(sorted({unicodedata.normalize("NFKC", word.casefold()) for word in listed}))


class Analyzer:
    """Turns values of a text field into terms. Raises InputError if its analyzer is not installed."""

    def __init__(self, options: TextOptions, field: str) -> None:
        """``field``: its name, for errors."""
        installed = analyzer_version(options.analyzer, options.stemmer)
        if installed != options.version:
            raise InputError(
                f"field {field!r} was indexed by analyzer {options.analyzer!r} of version {options.version!r}, version "
                f"{installed!r} is installed: terms may differ. Drop and add the field, or install that version"
            )
        self.is_unicode = options.analyzer == UNICODE
        self._split = split_words if self.is_unicode else _registered[options.analyzer].split
        self._stop_words = frozenset(options.stop_words)
        self._stem = None if options.stemmer is None else _stemmers(options.stemmer).Stemmer(options.stemmer).stemWord
        self._name = options.analyzer

    @property
    def term_of(self) -> Callable[[str], str | None] | None:
        """The function from words to terms (None: a stop word); None if every word is its own term."""
        return None if not self._stop_words and self._stem is None else self._term

    def words(self, value: str | Sequence[str]) -> list[str]:
        """The words of a text, or of tokens; a long word is replaced by a digest."""
        words = self._split(value) if isinstance(value, str) else value
        if not self.is_unicode and isinstance(value, str):
            _check_words(words, self._name)
        if max(map(len, words), default=0) <= MAX_TERM_BYTES // 4:
            return list(words)
        return [_shortened(word) for word in words]

    def terms(self, value: str | Sequence[str]) -> list[str]:
        """The terms of a text, or of tokens, in order."""
        words = self.words(value)
        if self.term_of is None:
            return [word for word in words if word]
        return [term for word in words if word and (term := self._term(word))]

    def spans(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Return the terms of a text, with the positions where their words begin and end."""
        for match in _pattern_of(text).finditer(text):
            for term in self.terms(match.group()):
                yield match.start(), match.end(), term

    def _term(self, word: str) -> str | None:
        if word in self._stop_words:
            return None
        return word if self._stem is None else str(self._stem(word))


def _stemmers(language: object) -> Any:
    """PyStemmer, which must know the language."""
    Stemmer = require("Stemmer")
    known = Stemmer.algorithms()
    if language not in known:
        raise InputError(f"stemmer {language!r} is unknown; there are: {', '.join(known)}")
    return Stemmer


def _check_words(words: object, name: str) -> None:
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) and "\0" not in word for word in words):
        raise InputError(f"analyzer {name!r} must return a list of strings without the character 0")


def _shortened(word: str) -> str:
    data = word.encode()
    if len(data) <= MAX_TERM_BYTES:
        return word
    import hashlib  # late: it loads OpenSSL

    return "\x01" + hashlib.sha256(data).hexdigest()


def split_words(text: str) -> list[str]:
    """The words of a text: UAX 29 without dictionaries; pairs of neighbors in runs of Chinese, Japanese and Korean.

    No word contains white space: parts between spaces that are ASCII are left to the kernel.
    """
    if (words := split_ascii(text)) is not None:
        return words
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    if folded.isalnum() and not _HAS_CJK.search(folded):
        return [folded]
    found: list[str] = []
    for is_ascii, parts in groupby(folded.split(), str.isascii):
        joined = " ".join(parts)
        words = split_ascii(joined) if is_ascii else None
        found += _matched(joined) if words is None else words
    return found


def _matched(folded: str) -> list[str]:
    """The words of normalized text, by expressions."""
    found = _pattern_of(folded).findall(folded)
    if "_" in folded:
        found = [word for word in found if word.strip("_")]
    if not _HAS_CJK.search(folded):
        return found
    return [part for word in found for part in (_pairs(word) if _HAS_CJK.match(word) else (word,))]


def _pairs(run: str) -> list[str]:
    return [run] if len(run) == 1 else [run[i : i + 2] for i in range(len(run) - 1)]


def _pattern_of(text: str) -> re.Pattern[str]:
    """The expression that finds the words of a text."""
    has_marks = any(unicodedata.category(c)[0] == "M" for c in {*_NOT_ASCII_OR_WORD.findall(text)})
    return _pattern(has_marks, _HAS_CJK.search(text) is not None)


@cache
def _pattern(has_marks: bool, has_cjk: bool) -> re.Pattern[str]:
    """Words: letters, digits, _ and marks; ``. ' ’`` between two letters; ``. ' , ;`` between two digits."""
    extra = _marks() if has_marks else ""
    letter, word = f"(?:[^\\W\\d_]|[{extra}])" if extra else r"[^\W\d_]", f"[\\w{extra}]"
    behind = f"(?:(?<=[^\\W\\d_])|(?<=[{extra}]))" if extra else r"(?<=[^\W\d_])"
    if has_cjk:
        word, letter = f"(?![{_CJK}]){word}", f"(?![{_CJK}]){letter}"
    run = f"(?:{word}|{behind}['.’‘·](?={letter})|(?<=\\d)['.,;](?=\\d))"
    return re.compile(f"[{_CJK}][{_CJK}{extra}]*|{word}{run}*" if has_cjk else f"{word}{run}*")


def _marks() -> str:
    """Every combining mark (category M), as ranges of a character class."""
    marks = [i for first, last in _MARK_BLOCKS for i in range(first, last) if unicodedata.category(chr(i))[0] == "M"]
    ends = [i for i, (mark, after) in enumerate(pairwise([*marks, -1])) if after != mark + 1]
    return "".join(
        f"{chr(marks[a])}-{chr(marks[b])}" for a, b in zip([0, *(i + 1 for i in ends[:-1])], ends, strict=True)
    )
