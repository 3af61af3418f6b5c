"""Haystack's filters in the language of a collection."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from haystack.errors import FilterError

COMPARISONS = {"==": "$eq", "!=": "$ne", ">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte"}
ATTRIBUTES = ("id", "content", "blob", "score", "embedding")
EMBEDDED = "_embedded"  # the payload key that says whether a document has an embedding
NOTHING: dict[str, Any] = {EMBEDDED: {"$in": []}}


def names_attribute(filters: dict[str, Any] | None) -> bool:
    """Whether a filter refers to an attribute of documents itself, such as ``id`` or ``content``."""
    if not filters:
        return False
    return filters.get("field") in ATTRIBUTES or any(map(names_attribute, filters.get("conditions", ())))


def where_of(filters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Haystack's filters in the collection's language."""
    if not filters:
        return None
    if "operator" not in filters:
        raise FilterError(f"'operator' is missing in {filters}")
    operator = filters["operator"]
    if operator in ("AND", "OR", "NOT"):
        if "conditions" not in filters:
            raise FilterError(f"'conditions' is missing in {filters}")
        inner = [where_of(condition) or {} for condition in filters["conditions"]]
        if not inner:  # as in Haystack: AND of no conditions is true, OR is false
            return None if operator == "AND" else NOTHING
        return {"$not": {"$and": inner}} if operator == "NOT" else {f"${operator.lower()}": inner}
    for key in ("field", "value"):
        if key not in filters:
            raise FilterError(f"{key!r} is missing in {filters}")
    return _comparison(filters["field"].removeprefix("meta."), operator, filters["value"])


def _comparison(field: str, operator: str, value: Any) -> dict[str, Any]:
    if operator in ("in", "not in"):
        if not isinstance(value, list):
            raise FilterError(f"{operator} takes a list, got {value!r}")
        return {field: {"$in" if operator == "in" else "$nin": value}}
    if operator not in COMPARISONS:
        raise FilterError(f"unknown operator {operator!r}; known are {', '.join(COMPARISONS)}, in, not in")
    if operator in ("==", "!="):
        return {field: {"$exists": operator == "!="} if value is None else {COMPARISONS[operator]: value}}
    if value is None:  # a comparison with None never matches
        return NOTHING
    if isinstance(value, list) or (isinstance(value, str) and not _is_date(value)):
        raise FilterError(f"{operator} compares numbers and dates, got {value!r}")
    return {field: {COMPARISONS[operator]: value}}


def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
