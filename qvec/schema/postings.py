"""The state of text and sparse fields: their options and the segments of their posting lists (docs/format.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from qvec.common.plain_state import Between
from qvec.schema.validation import MAX_ROWS

MAX_SEGMENTS = 4096
MAX_STOP_WORDS = 10_000
_Count = Annotated[int, Between(0, MAX_ROWS)]
_Text = Annotated[str, Between(0, 1024)]


@dataclass(frozen=True, slots=True)
class TextOptions:
    """Options for converting text to terms, and the constants of BM25.

    ``version``: versions of analyzer and stemmer. ``positions``: whether queries can contain phrases.
    """

    kind: Literal["text"] = "text"
    analyzer: _Text = "unicode"
    version: _Text = "1"
    stemmer: _Text | None = None
    stop_words: Annotated[tuple[_Text, ...], Between(0, MAX_STOP_WORDS)] = ()
    k1: Annotated[float, Between(0, 1000)] = 1.2
    b: Annotated[float, Between(0, 1)] = 0.75
    positions: bool = False


@dataclass(frozen=True, slots=True)
class SparseOptions:
    """``originals``: whether payloads contain weights in float16 ("f16") or in eight bits ("u8")."""

    kind: Literal["sparse"] = "sparse"
    originals: Literal["f16", "u8"] = "f16"


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """A segment. ``first``: the row of the first bit of its bitmap, a multiple of 64. ``docs``: rows in the bitmap;
    ``written``: rows when it was written. ``postings``: number of its postings, including those of other rows.
    """

    number: Annotated[int, Between(0, 65_535)]
    first: _Count
    written: Annotated[int, Between(1, MAX_ROWS)]
    docs: Annotated[int, Between(1, "written")]
    postings: Annotated[int, Between(1, (1 << 62))]


@dataclass(frozen=True, slots=True)
class PostingsState:
    """The posting lists of a field. ``docs``: rows with terms; ``tokens``: the sum of their lengths, 0 under sparse."""

    options: TextOptions | SparseOptions
    docs: _Count = 0
    tokens: Annotated[int, Between(0, 1 << 62)] = 0
    segments: Annotated[tuple[SegmentRecord, ...], Between(0, MAX_SEGMENTS)] = ()
