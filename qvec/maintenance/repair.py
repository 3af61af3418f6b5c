"""What follows from originals and payloads, made anew where it is damaged or wrong.

Codes follow from the originals; graphs, packed nodes and inverted lists from both; the id map, the ids of rows and the
bitmap of deleted rows from one another; the indexes of fields from the payloads. Originals (codes, where none are
kept), payloads and calibrations follow from nothing: where these are damaged, nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from qvec._kernels import Column
from qvec.common.errors import CorruptError, FormatError
from qvec.common.types import NDArray
from qvec.filters.check import check_fields_of
from qvec.filters.maintain import FieldWriter, field_columns
from qvec.index import load_index
from qvec.maintenance.verify import wrong_codes
from qvec.quality.drift_record import read_looks
from qvec.rows.lookup import stored_record
from qvec.rows.writer import ENCODE_ROWS, Writer
from qvec.schema.bitmaps import bitmap_of, bytes_of, complement, read_bitmap, rows_in, words_for
from qvec.schema.generations import discard_pending, drop_columns
from qvec.schema.layout import CODES, DELETED, DRIFT, IDS, VECTORS, bitmap_column, narrow_column, wide_column
from qvec.storage.pages import structure_problems
from qvec.storage.store import ColumnSpec, Store, Transaction

_ID_BYTES = 8


def repair(
    store: Store, writer: Callable[[Transaction], Writer], verify: Callable[[], list[str]], threads: int
) -> list[str]:
    """Repair a collection in one transaction; what was rebuilt. ``verify``: the problems of the last commit.

    Raises CorruptError if data is damaged that nothing else can be used to rebuild.
    """
    if problems := structure_problems(store.path):
        raise CorruptError(f"LMDB's own pages cannot be rebuilt: {problems[0]}. Restore a backup")
    with store.write() as txn:
        done = Repair(txn, writer(txn), threads).run()
    if problems := verify():
        raise CorruptError(f"this remains after the repair: {problems[0]}. Restore a backup")
    return done


@dataclass
class Repair:
    """The repair of a collection inside one write transaction, which holds what it makes anew in memory."""

    txn: Transaction
    writer: Writer
    threads: int
    done: list[str] = field(default_factory=list)

    def run(self) -> list[str]:
        """Make anew what has to be; what that was, in words. CorruptError where nothing can be made of what is left."""
        self.damaged = {name for name, column in self.txn.columns.items() if not _is_whole(column)}
        self._check_base()
        if self.writer.quantizer is None:
            return self.done
        self._forget_generations()
        self._forget_looks()
        self._restore_ids()
        self._has_new_codes = self._stored(CODES) in self.damaged
        if self._has_new_codes:
            self._make_codes()
        else:
            self._correct_codes()
        self._make_index()
        self._make_fields()
        return self.done

    # --- what cannot be made ---

    def _check_base(self) -> None:
        """Whether all is there that the rest follows from."""
        base = VECTORS if self.writer.original_quantizer is not None else CODES
        lost = [str(problem) for problem in self.txn.check_sealed("records")]
        if self.writer.quantizer is not None and self._stored(base) in self.damaged:
            lost.append(f"column {self._stored(base)!r} holds the originals")
        if lost:
            raise CorruptError(f"this cannot be made anew: {'; '.join(lost[:3])}. Restore a backup")

    def _stored(self, name: str) -> str:
        """What a column is stored under."""
        return str(self.txn.state["names"].get(name, name))

    # --- generations that are not in force ---

    def _forget_generations(self) -> None:
        state = self.txn.state
        apart = self.damaged - self._columns_of(state["names"])
        if (pending := state["pending"]) is not None and apart & self._columns_of(pending["names"]):
            discard_pending(self.txn)
            self.done.append("the unfinished generation was given up")
        for entry in list(state["generations"]):
            if (
                entry["number"] == state["quantizer"]
                or not entry["rows"]
                or not apart & self._columns_of(entry["names"])
            ):
                continue
            gone = entry | {"rows": 0, "names": {}, "index": None}
            state["generations"] = [gone if e["number"] == entry["number"] else e for e in state["generations"]]
            drop_columns(self.txn, entry["names"])
            self.done.append(f"the codes of generation {entry['number']}, which is not in force, were dropped")

    def _forget_looks(self) -> None:
        """What cannot be computed with says nothing about drift; the next batches begin another record."""
        for entry in self.txn.state["generations"]:
            try:
                read_looks(self.txn, entry["number"], self.writer.config.dim)
            except FormatError as error:
                self.txn.delete_record(DRIFT, entry["number"])
                self.done.append(f"what generation {entry['number']} knew of drift was dropped: {error}")

    def _columns_of(self, names: Mapping[str, str]) -> set[str]:
        """What the columns of a generation are stored under."""
        own_names = {stored.partition(".")[0] for stored in self.txn.columns}
        return {names.get(name, name) for name in own_names} | set(names.values())

    # --- rows and their ids ---

    def _restore_ids(self) -> None:
        sound = not list(self.txn.check_sealed("ids"))
        rows = {row: key for key, row in self.txn.iter_ids()} if sound else {}
        whole = not self.damaged & {DELETED, IDS}
        if whole and sound and sorted(rows) == self._live().tolist() and self._ids_agree(rows):
            return
        if sound and len(rows) == self.txn.state["live"] and max(rows, default=-1) < self.txn.state["n"]:
            self._follow_map(rows)
        elif whole and len(self._live()) == self.txn.state["live"]:
            self._make_map()
        else:
            raise CorruptError("neither the id map nor the rows' own ids are whole. Restore a backup")

    def _live(self) -> NDArray[np.int64]:
        n = self.txn.state["n"]
        return rows_in(complement(n, read_bitmap(self.txn.columns[DELETED], n)))

    def _ids_agree(self, rows: dict[int, bytes]) -> bool:
        return IDS not in self.txn.columns or self._keys_of(self._live()) == [rows[row] for row in sorted(rows)]

    def _keys_of(self, rows: NDArray[np.int64]) -> list[bytes]:
        """The keys that rows say that they have."""
        if IDS in self.txn.columns:
            return [key.tobytes()[::-1] for key in self.txn.columns[IDS].read(rows)]
        records = [stored_record(self.txn, row) for row in rows.tolist()]
        if None in records:
            raise CorruptError("the record of a row is lost, and with it its id. Restore a backup")
        return [record["id"].encode() for record in records]

    def _follow_map(self, rows: dict[int, bytes]) -> None:
        """Deleted rows are those that no id names; each of the others has the id that names it."""
        n = self.txn.state["n"]
        live = np.array(sorted(rows), np.int64)
        column = self._renewed(DELETED, bitmap_column(DELETED), words_for(n))
        column.write(0, bytes_of(complement(n, bitmap_of(live, n))))
        if IDS in self.txn.columns:
            column = self._renewed(IDS, narrow_column(IDS, _ID_BYTES), n)
            values = np.frombuffer(b"".join(rows[row][::-1] for row in live.tolist()), np.uint8)
            column.put(live, values.reshape(-1, _ID_BYTES))
        self.done.append(f"the ids of {len(live)} rows and the bitmap of deleted ones, by the id map")

    def _make_map(self) -> None:
        live = self._live()
        named = sorted(zip(self._keys_of(live), live.tolist(), strict=True))
        self.txn.clear("ids")
        self.txn.put_ids([key for key, _ in named], [row for _, row in named])
        self.done.append(f"the id map of {len(live)} rows")

    # --- codes and index ---

    def _make_codes(self) -> None:
        writer, n = self.writer, self.txn.state["n"]
        assert writer.quantizer is not None
        assert writer.original_quantizer is not None
        live = self._live()
        stored = self._stored(CODES)
        column = self._renewed(stored, wide_column(CODES, writer.quantizer.code_size), n)
        originals = self.writer.columns[VECTORS]
        for start in range(0, len(live), ENCODE_ROWS):
            rows = live[start : start + ENCODE_ROWS]
            column.put(rows, writer.quantizer.encode(writer.original_quantizer.decode(originals.read(rows))))
        self.done.append(f"the codes of {len(live)} rows")

    def _correct_codes(self) -> None:
        """Codes that were written whole and are wrong; those of deleted rows stay."""
        writer, corrected = self.writer, 0
        assert writer.quantizer is not None
        for rows, codes in wrong_codes(self.txn, writer.quantizer, writer.original_quantizer):
            writer.columns[CODES].put(rows, codes)
            corrected += len(rows)
        if corrected:
            self.done.append(f"the codes of {corrected} rows")

    def _make_index(self) -> None:
        state, writer = self.txn.state, self.writer
        assert writer.quantizer is not None
        index = load_index(writer.config.index, state["index"])
        specs = index.columns(writer.quantizer)
        lacks_codes = self._has_new_codes and state["index"].get("tombstones", 0) > 0  # deleted rows have none any more
        if not specs or not (lacks_codes or self._index_is_wrong(set(specs))):
            return
        for name, spec in specs.items():
            self._renewed(self._stored(name), spec, 0)
        state["index"] = {"kind": index.kind}
        live = self._live().astype(np.uint32)
        if len(live):
            state["index"] = index.extend(writer.source(), state["index"], live, self.threads, None)
        self.done.append(f"the index ({index.kind}) of {len(live)} rows")

    def _index_is_wrong(self, names: set[str]) -> bool:
        if {self._stored(name) for name in names} & self.damaged:
            return True
        state, writer = self.txn.state, self.writer
        try:
            return bool(load_index(writer.config.index, state["index"]).check(writer.source(), state["index"], True))
        except (CorruptError, FormatError):
            return True

    # --- fields ---

    def _make_fields(self) -> None:
        state = self.txn.state
        if not state["fields"] or not self._fields_are_wrong():
            return
        self.txn.clear("entries")
        for name, spec in field_columns(state).items():
            self._renewed(name, spec, 0)
        fields = FieldWriter(self.txn)
        fields.resize(state["n"])
        payloads = dict(self._payloads())
        rows = sorted(payloads)
        fields.change(rows, [], fields.read([payloads[row] for row in rows]))
        self.done.append(f"the indexes of {len(state['fields'])} fields")

    def _fields_are_wrong(self) -> bool:
        if self.damaged & set(field_columns(self.txn.state)) or list(self.txn.check_sealed("entries")):
            return True
        return bool(list(check_fields_of(self.txn, dict(self._payloads()))))

    def _payloads(self) -> Iterator[tuple[int, dict[str, object] | None]]:
        for row in self._live().tolist():
            if (record := stored_record(self.txn, row)) is not None:
                yield row, record["payload"]

    def _renewed(self, stored: str, spec: ColumnSpec, rows: int) -> Column:
        """A column begun anew, under its own name and generation."""
        if stored in self.txn.columns:
            spec = replace(spec, generation=self.txn.columns[stored].generation)
            self.txn.drop_column(stored)
        column = self.txn.add_column(stored, spec)
        column.resize(rows)
        return column


def _is_whole(column: Column) -> bool:
    return all(column.check(block) for block in range(column.n_blocks))
