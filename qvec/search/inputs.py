"""The inputs of a search other than the vector: texts and sparse vectors, checked for one collection."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from qvec._kernels import Deadline, PostingField, search_postings
from qvec.common.errors import CorruptError, InputError
from qvec.common.types import Bitmap, Float32Array, NDArray
from qvec.rows.expiry import Present
from qvec.rows.lookup import payloads_of, read_records
from qvec.schema.bitmaps import bitmap_of, rows_in, words_for
from qvec.schema.fusion import tuned_for
from qvec.schema.postings import TextOptions
from qvec.schema.state import State
from qvec.schema.validation import MAX_K, check_count
from qvec.search.boost import Boost, check_boost
from qvec.search.fusion import DEFAULT_DEPTH, SPARSE, TEXT, VECTOR, Fusion, Listed, check_fusion, check_weight
from qvec.storage.store import Snapshot
from qvec.text.analysis import MAX_TEXT_BYTES
from qvec.text.reader import (
    analyzer_of,
    counts_of,
    postings_of,
    postings_with,
    rows_with_all,
    sparse_terms,
    text_terms,
)
from qvec.text.sparse import product, rows_of, sparse_vector
from qvec.text.statistics import TextStatistics

Phrase = tuple[tuple[str, tuple[str, ...]], ...]
"""For each field, the terms of a phrase, in order."""


class RawInputs(NamedTuple):
    """Unchecked inputs of a call; see ``Collection.search``."""

    text: Any = None
    sparse: Any = None
    fusion: Any = None
    fusion_depth: Any = None
    text_weights: Any = None
    highlight: Any = False
    statistics: Any = None
    boost: Any = None

    @property
    def is_one_text(self) -> bool:
        """Whether the only input is one text, and the only option ``text_weights``."""
        alone = self.sparse is None and self.fusion is None and self.fusion_depth is None and self.statistics is None
        alone = alone and self.boost is None
        return alone and self.highlight is False and isinstance(self.text, str)

    def check(self, has_vector: bool) -> None:
        """Raise InputError if there is neither text nor a sparse vector, nor a boost of a search by a vector."""
        if self.text is None and self.sparse is None and not (has_vector and self.boost is not None):
            raise InputError(
                "give text or sparse: fusion, text_weights, highlight and fusion_depth are for them"
                if has_vector
                else "give query, text or sparse"
            )


class Query(NamedTuple):
    """One query of one input: terms as (number of the field, term, weight). ``vectors``: ids and weights of sparse
    fields.

    ``phrases``: for each, its terms by field; a row must have each of them in one of the fields. ``statistics``: of
    several collections together; None: of this one.
    """

    fields: tuple[str, ...]
    terms: list[tuple[int, bytes, float]]
    vectors: tuple[tuple[NDArray[np.uint32], Float32Array], ...] = ()
    phrases: tuple[Phrase, ...] = ()
    statistics: TextStatistics | None = None


_QUOTED = re.compile(r'"([^"]+)"')


@dataclass(frozen=True)
class Inputs:
    """Checked inputs of n queries. ``names``: those that there are; ``fusion``: how their lists are joined.

    ``boost``: changes the scores of the joined list.
    """

    n: int | None
    names: tuple[str, ...]
    queries: Mapping[str, list[Query]]
    fusion: Fusion
    depth: int
    highlight: bool
    boost: Boost | None


def check_inputs(raw: RawInputs, state: State, has_vector: bool, n: int | None) -> Inputs:
    """Check the inputs of a search. ``n``: the number of vectors of a batch. Raises InputError."""
    n = _number_of(raw, n, has_vector)
    queries: dict[str, list[Query]] = {}
    boost = None if raw.boost is None else check_boost(raw.boost, state)
    if raw.text is not None:
        fields = _text_fields(state, raw.text_weights)
        texts = [raw.text] if n is None else list(raw.text)
        counts = _statistics(raw.statistics, fields)
        made = [_text_query(state, fields, text, _name("text", i, n)) for i, text in enumerate(texts)]
        queries[TEXT] = made if counts is None else [query._replace(statistics=counts) for query in made]
    elif raw.text_weights is not None or raw.statistics is not None:
        raise InputError("text_weights and statistics are for text fields; give text=")
    if raw.sparse is not None:
        queries[SPARSE] = _sparse_queries(_sparse_fields(state, raw.sparse), n)
    names = ((VECTOR,) if has_vector else ()) + tuple(queries)
    if type(raw.highlight) is not bool:
        raise InputError(f"highlight must be True or False, got {raw.highlight!r}")
    if raw.highlight and raw.text is None:
        raise InputError("highlight shows the words of a text; give text=")
    fusion, depth = _fusion_of(raw, state, names)
    return Inputs(n, names, queries, fusion, depth, raw.highlight, boost)


def _fusion_of(raw: RawInputs, state: State, names: tuple[str, ...]) -> tuple[Fusion, int]:
    """Return how lists are joined, and their length: as the call says, or as :meth:`Collection.tune_fusion` chose."""
    tuned = tuned_for(state.fusions, names) if raw.fusion is None else None
    fusion = check_fusion(raw.fusion, names) if tuned is None else tuned.fusion
    if raw.fusion_depth is not None:
        return fusion, check_count("fusion_depth", raw.fusion_depth, 1, MAX_K)
    return fusion, DEFAULT_DEPTH if tuned is None else tuned.depth


def _statistics(given: Any, fields: Mapping[str, float]) -> TextStatistics | None:
    if given is None or (isinstance(given, TextStatistics) and given.fields.keys() >= fields.keys()):
        return given
    raise InputError(f"statistics must be TextStatistics of {', '.join(fields)}; get them from text_statistics()")


def statistics_of(snap: Snapshot, texts: Sequence[str], weights: Any = None) -> TextStatistics:
    """The counts that BM25 uses for some texts."""
    terms: dict[str, set[bytes]] = {field: set() for field in _text_fields(snap.state, weights)}
    for i, text in enumerate(texts):
        query = _text_query(snap.state, dict.fromkeys(terms, 1.0), text, f"texts[{i}]")
        for number, term, _ in query.terms:
            terms[query.fields[number]].add(term)
    return TextStatistics({field: counts_of(snap, field, found) for field, found in terms.items()})


def one_text(snap: Snapshot, raw: RawInputs) -> Query:
    """The query of a search by one text."""
    fields = snap.derived.get("text fields") if raw.text_weights is None else None
    if fields is None:
        fields = _text_fields(snap.state, raw.text_weights)
        if raw.text_weights is None:
            snap.derived["text fields"] = fields
    return _text_query(snap.state, fields, raw.text, "text")


def _name(name: str, i: int, n: int | None) -> str:
    return name if n is None else f"{name}[{i}]"


def _number_of(raw: RawInputs, n: int | None, has_vector: bool) -> int | None:
    """Return the number of queries of a batch; None: one query."""
    counts = {"query": n} if has_vector else {}
    if raw.text is not None:
        is_batch = isinstance(raw.text, Sequence) and not isinstance(raw.text, str)
        if not is_batch and not isinstance(raw.text, str):
            raise InputError(f"text must be a string, or a list of strings for a batch; got {type(raw.text).__name__}")
        counts["text"] = len(raw.text) if is_batch else None
    if not counts:
        value = next(iter(raw.sparse.values())) if _names_fields(raw.sparse) else raw.sparse
        many = isinstance(value, list) or (hasattr(value, "indptr") and value.shape[0] != 1)
        return (value.shape[0] if hasattr(value, "indptr") else len(value)) if many else None
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name}: {'one' if count is None else count}" for name, count in counts.items())
        raise InputError(f"the inputs have different numbers of queries: {shown}")
    return next(iter(counts.values()))


def _fields_of(state: State, kind: str) -> list[str]:
    """Return the names of the fields of a type. InputError if no such field covers every row."""
    declared = [name for name, field in state.fields.items() if field.type == kind]
    names = [name for name in declared if name not in state.partial_fields]
    if not names and declared:
        raise InputError(f"field {declared[0]!r} is being added: call add_field() again, which continues")
    if not names:
        raise InputError(f"{kind}= needs a {kind} field; declare one: add_field(name, {kind!r})")
    return names


def _text_fields(state: State, weights: Any) -> dict[str, float]:
    """Return the text fields to search, with their weights above zero."""
    names = _fields_of(state, "text")
    if weights is not None and not isinstance(weights, Mapping):
        raise InputError(f"text_weights must map text fields to weights, got {type(weights).__name__}")
    for name in weights or ():
        if name not in names:
            raise InputError(f"text_weights names {name!r}, which is no text field; there are: {', '.join(names)}")
    fields = {name: check_weight(f"text_weights[{name!r}]", (weights or {}).get(name, 1.0)) for name in names}
    fields = {name: weight for name, weight in fields.items() if weight}
    if not fields:
        raise InputError("text_weights must have a weight above zero")
    return fields


def _text_query(state: State, fields: Mapping[str, float], text: Any, name: str) -> Query:
    if not isinstance(text, str):
        raise InputError(f"{name} must be a string, got {type(text).__name__}")
    if 4 * len(text) > MAX_TEXT_BYTES and len(text.encode(errors="replace")) > MAX_TEXT_BYTES:
        raise InputError(f"{name} is longer than the limit of {MAX_TEXT_BYTES} bytes")
    terms = []
    for number, (field, weight) in enumerate(fields.items()):
        terms += [(number, term, weight * count) for term, count in text_terms(state, field, text)]
    return Query(tuple(fields), terms, phrases=_phrases(state, fields, text) if '"' in text else ())


def _phrases(state: State, fields: Iterable[str], text: str) -> tuple[Phrase, ...]:
    """Return the parts of a text in double quotes, if there are fields that have positions."""
    found = []
    for part in _QUOTED.findall(text):
        phrase = [
            (field, tuple(analyzer_of(state, field).terms(part))) for field in fields if _has_positions(state, field)
        ]
        if any(terms for _, terms in phrase):
            found.append(tuple((field, terms) for field, terms in phrase if terms))
    return tuple(found)


def _has_positions(state: State, field: str) -> bool:
    postings = state.fields[field].postings
    return postings is not None and isinstance(postings.options, TextOptions) and postings.options.positions


def _names_fields(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(name, str) for name in value)


def _sparse_fields(state: State, value: Any) -> dict[str, Any]:
    """The sparse fields to search, and the query for each."""
    names = _fields_of(state, "sparse")
    if _names_fields(value) and set(value) != {"ids", "weights"}:
        if wrong := sorted(set(value) - set(names)):
            raise InputError(f"sparse names {wrong[0]!r}, which is no sparse field; there are: {', '.join(names)}")
        return dict(value)
    if len(names) > 1:
        raise InputError(f"sparse= must name the fields, as in {{{names[0]!r}: ...}}; there are: {', '.join(names)}")
    return {names[0]: value}


def _sparse_queries(values: Mapping[str, Any], n: int | None) -> list[Query]:
    """Queries of sparse fields, whose scores are added."""
    shown = {field: f"sparse[{field!r}]" for field in values}
    rows = {
        field: [value] if n is None else rows_of(value, n, shown[field], "queries") for field, value in values.items()
    }
    return [
        _sparse_query({field: (of[i], _name(shown[field], i, n)) for field, of in rows.items()}) for i in range(n or 1)
    ]


def _sparse_query(values: Mapping[str, tuple[Any, str]]) -> Query:
    vectors = tuple(sparse_vector(value, name) for value, name in values.values())
    terms = [
        (number, term, weight)
        for number, (ids, weights) in enumerate(vectors)
        for term, weight in sparse_terms(ids, weights)
    ]
    return Query(tuple(values), terms, vectors)


def search_lists(
    snap: Snapshot, query: Query, k: int, excluded: Bitmap | None, deadline: Deadline | None
) -> tuple[Listed, int]:
    """Find the best k rows of one query in posting lists. Also returns the number of scored postings."""
    if isinstance(snap, Present) and snap.hidden is not None:
        excluded = snap.hidden if excluded is None else excluded | snap.hidden
    for phrase in query.phrases:
        without = ~_rows_with(snap, phrase)
        excluded = without if excluded is None else excluded | without
    fields: list[PostingField] = [postings_of(snap, name) for name in query.fields]
    if query.statistics is not None:
        fields = [postings_with(snap, name, query.statistics.fields[name]) for name in query.fields]
    rows, scores, work = search_postings(fields, query.terms, snap.state.n, k, excluded, deadline=deadline)
    return (rows, scores), work[2]


def _rows_with(snap: Snapshot, phrase: Phrase) -> Bitmap:
    """Return the rows with a phrase in one of its fields, cached until the next commit."""
    known: Bitmap | None = snap.derived.get(("phrase", phrase))
    if known is not None:
        return known
    n: int = snap.state.n
    bits = np.zeros(words_for(n), np.uint64)
    for field, terms in phrase:
        found = np.zeros_like(bits)
        rows_with_all(snap, field, sorted({term.encode() for term in terms}), n, found)
        rows, analyzer = rows_in(found), analyzer_of(snap.state, field)
        payloads = payloads_of(read_records(snap, rows.tolist()))
        kept = [_has_phrase(analyzer.terms((payload or {}).get(field) or ""), terms) for payload in payloads]
        bits |= bitmap_of(rows[np.array(kept, bool)], n)
    snap.derived["phrase", phrase] = bits
    return bits


def _has_phrase(terms: list[str], phrase: tuple[str, ...]) -> bool:
    size = len(phrase)
    return any(tuple(terms[i : i + size]) == phrase for i, term in enumerate(terms) if term == phrase[0])


def rescored(snap: Snapshot, query: Query, listed: Listed, k: int) -> Listed:
    """Return the best k rows of a list, scored with the weights in their payloads."""
    rows = listed[0]
    scores = np.zeros(len(rows), np.float32)
    for i, payload in enumerate(payloads_of(read_records(snap, rows.tolist()))):
        try:
            scores[i] = sum(
                product(vector, (payload or {}).get(field))
                for field, vector in zip(query.fields, query.vectors, strict=True)
            )
        except InputError as error:
            raise CorruptError(f"a sparse vector of row {rows[i]} is damaged: {error}") from error
    best = np.lexsort((rows, -scores))[:k]
    return rows[best], scores[best]


def spans_of(state: State, query: Query, payload: Mapping[str, Any] | None) -> dict[str, list[tuple[int, int]]]:
    """Return for each text field of a payload where words of a query begin and end."""
    wanted: dict[int, set[bytes]] = {}
    for number, term, _ in query.terms:
        wanted.setdefault(number, set()).add(term)
    found = {}
    for number, field in enumerate(query.fields):
        text = (payload or {}).get(field)
        if isinstance(text, str):
            spans = [
                (a, b)
                for a, b, term in analyzer_of(state, field).spans(text)
                if term.encode() in wanted.get(number, ())
            ]
            found[field] = _joined(spans)
    return found


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Remove spans that repeat the previous span."""
    return [span for i, span in enumerate(spans) if not i or span != spans[i - 1]]
