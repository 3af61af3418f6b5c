"""Trained quantizers as objects that are stored, listed, exported and imported; each is a numbered generation."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from qvec.codes.configs import CodeConfig, code_name
from qvec.codes.registry import Quantizer, code_from_dict, code_to_dict, from_state
from qvec.common.errors import FormatError, InputError
from qvec.common.plain_state import State, take_int, take_state, take_str, take_version
from qvec.schema.config import Config
from qvec.schema.layout import CALIBRATION
from qvec.storage import records
from qvec.storage.store import Transaction

FORMAT, VERSION = "qvec calibration", 1
MAX_GENERATIONS = 65_535  # the keys of blocks hold 16 bits of it
_ID_DIGITS = 16
_FIELDS = ("format", "version", "id", "dim", "metric", "model", "created", "n_samples", "code", "quantizer")
Transfer = Literal["json", "msgpack"]


@dataclass(frozen=True)
class Trained:
    """A quantizer and what is known of its training; ``created``: UTC, ISO 8601."""

    quantizer: Quantizer
    code: CodeConfig
    n_samples: int
    model: str | None
    created: str | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """A stored calibration, and the codes made with it.

    ``number``: its name in this collection, never used again. ``id``: 16 hex digits of a hash of what was
    learned; equal ids give equal codes. ``n_samples``: vectors trained on. ``rows``: rows coded with it; fewer
    than are stored where it was left behind, 0 where it was never used or its codes are gone since rows were given to
    other vectors. ``active``: searches use its codes.
    """

    number: int
    code: str
    id: str
    code_size: int
    method: str | None
    model: str | None
    created: str
    n_samples: int
    rows: int
    active: bool


def check_enough(code: CodeConfig, rows: int) -> None:
    """Raise InputError where a sample that is given for training is smaller than what the code learns from."""
    if rows < code.min_samples:
        raise InputError(f"{code.kind} needs a sample of at least {code.min_samples} vectors, got {rows}")


def identify(quantizer: Quantizer) -> str:
    """The name of what was learned: the calibration's id where there is one, else a hash of the whole state."""
    calibration = getattr(quantizer, "calibration", None)
    if calibration is not None and quantizer.transform is None:
        return str(calibration.id)
    import hashlib  # late: it loads OpenSSL

    return hashlib.sha256(records.pack(_undated(quantizer.state()))).hexdigest()[:_ID_DIGITS]


def _undated(state: Any) -> Any:
    """Plain data without the dates, which tell equal calibrations apart."""
    if isinstance(state, dict):
        return {name: _undated(value) for name, value in sorted(state.items()) if name != "created"}
    return [_undated(value) for value in state] if isinstance(state, (list, tuple)) else state


def register(txn: Transaction, trained: Trained) -> int:
    """Store a quantizer; the number of its generation. Nothing is coded with it yet."""
    state, quantizer = txn.state, trained.quantizer
    number: int = state["next_generation"]
    if number > MAX_GENERATIONS:
        raise InputError(f"the collection has had {number} calibrations; the limit is {MAX_GENERATIONS + 1}")
    txn.put_record(CALIBRATION, number, quantizer.state())
    state["next_generation"] = number + 1
    entry = {
        "number": number,
        "code": code_to_dict(trained.code),
        "id": identify(quantizer),
        "code_size": quantizer.code_size,
        "model": trained.model,
        "created": trained.created or datetime.now(UTC).isoformat(timespec="seconds"),
        "n_samples": trained.n_samples,
        "rows": 0,
        "names": {},
        "index": None,
        "linked": 0,
        "served": False,
    }
    state["generations"] = [*state["generations"], entry]
    return number


def entry_of(state: State, number: object) -> dict[str, Any]:
    """What the state knows of a generation; InputError lists those that are there."""
    for entry in state["generations"]:
        if entry["number"] == number:
            return dict(entry)
    there = ", ".join(str(entry["number"]) for entry in state["generations"]) or "none"
    raise InputError(f"there is no generation {number!r}; the collection has: {there}")


def listed(state: State) -> list[Generation]:
    """All generations, oldest first."""
    return [_generation(state, entry) for entry in state["generations"]]


def _generation(state: State, entry: dict[str, Any]) -> Generation:
    active = entry["number"] == state["quantizer"]
    pending = state["pending"]
    building = pending is not None and pending["number"] == entry["number"]
    return Generation(
        number=entry["number"],
        code=code_name(code_from_dict(entry["code"])),
        id=entry["id"],
        code_size=entry["code_size"],
        method=entry["code"].get("method"),
        model=entry["model"],
        created=entry["created"],
        n_samples=entry["n_samples"],
        rows=state["n"] if active else pending["rows"] if building else entry["rows"],
        active=active,
    )


def exported(entry: State, state: State, config: Config, form: Transfer) -> str | bytes:
    """A calibration as JSON text or msgpack bytes, complete in itself."""
    if form not in ("json", "msgpack"):
        raise InputError(f"format must be json or msgpack, got {form!r}")
    kept = {name: entry[name] for name in ("id", "model", "created", "n_samples", "code")}
    plain = {"format": FORMAT, "version": VERSION, "dim": config.dim, "metric": config.metric} | kept
    plain["quantizer"] = state
    return records.pack(plain) if form == "msgpack" else json.dumps(plain, default=_armoured)


def imported(data: str | bytes, config: Config) -> Trained:
    """Read what :func:`exported` gave.

    FormatError: it is damaged or not of this format. InputError: it is of another dimension, metric or model.
    """
    fields = take_state(_parsed(data), "calibration", _FIELDS)
    if fields["format"] != FORMAT:
        raise FormatError(f"field 'format' must be {FORMAT!r}, got {fields['format']!r}")
    take_version(fields, VERSION)
    for name, own in (("dim", config.dim), ("metric", config.metric), ("model", config.model)):
        if fields[name] != own:
            raise InputError(f"the calibration is of {name} {fields[name]!r}, the collection of {own!r}")
    quantizer, code = from_state(fields["quantizer"]), code_from_dict(fields["code"])
    if (quantizer.dim, quantizer.metric, quantizer.kind) != (config.dim, config.metric, code.kind):
        raise FormatError("field 'quantizer' is of another dimension, metric or kind than the calibration says")
    if take_str(fields, "id") != identify(quantizer):
        raise FormatError("field 'id' does not match the calibration's content")
    n_samples = take_int(fields, "n_samples", 0, 2**63 - 1)
    return Trained(quantizer, code, n_samples, fields["model"], take_str(fields, "created", limit=64))


def _parsed(data: str | bytes) -> object:
    try:
        if isinstance(data, str):
            return json.loads(data, object_pairs_hook=_disarmoured)
        return records.unpack(data)
    except ValueError as error:
        raise FormatError(f"calibration is neither JSON nor msgpack: {error}") from error


def _armoured(value: object) -> dict[str, str]:
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return {"base64": base64.b64encode(value).decode()}


def _disarmoured(pairs: Iterable[tuple[str, Any]]) -> Any:
    plain = dict(pairs)
    return base64.b64decode(plain["base64"], validate=True) if plain.keys() == {"base64"} else plain
