"""Rebuild derived data that is damaged or wrong.

Codes are derived from the originals, unless they came quantized; graphs, packed nodes and inverted lists from both; the
id map, the ids of rows and the bitmap of deleted rows from one another; the indexes of fields from the payloads.
Originals (or codes that are not derived), payloads and quantizers cannot be rebuilt: if these are damaged, nothing is
written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qvec._kernels import Column
from qvec.common.errors import CorruptError, FormatError
from qvec.common.types import NDArray
from qvec.filters.check import check_fields_of
from qvec.filters.maintain import FieldWriter, field_columns
from qvec.maintenance.verify import wrong_codes
from qvec.quality.drift_record import read_drift_record
from qvec.rows.lookup import live_rows, read_record, read_records
from qvec.rows.writer import ENCODE_ROWS, Writer
from qvec.schema.bitmaps import bitmap_of, bytes_of, complement, words_for
from qvec.schema.generations import discard_codes, discard_pending
from qvec.schema.layout import CODES, DELETED, DRIFT, IDS, VECTORS, bitmap_column, code_column, narrow_column
from qvec.schema.state import State
from qvec.storage.pages import structure_problems
from qvec.storage.store import ColumnSpec, Store, Transaction
from qvec.text.segments import all_columns
from qvec.text.writer import PostingsWriter

_ID_BYTES = 8


def repair(
    store: Store, writer: Callable[[Transaction], Writer], verify: Callable[[], Sequence[str]], threads: int
) -> list[str]:
    """Repair a collection in one transaction. Returns what was rebuilt. ``verify``: finds problems of the last commit.

    Raises CorruptError if damaged data cannot be rebuilt from other data.
    """
    if problems := structure_problems(store.readable_path):
        raise CorruptError(f"LMDB's own pages cannot be rebuilt: {problems[0]}. Restore a backup")
    with store.write() as txn:
        done = Repair(txn, writer(txn), threads).run()
    if remaining := verify():
        raise CorruptError(f"this remains after the repair: {remaining[0]}. Restore a backup")
    return done


@dataclass
class Repair:
    """The repair of a collection inside one write transaction, which holds all rebuilt data in memory."""

    txn: Transaction
    writer: Writer
    threads: int
    done: list[str] = field(default_factory=list)

    def run(self) -> list[str]:
        """Rebuild damaged or wrong data. Returns descriptions of what was rebuilt.

        Raises CorruptError if the valid data does not suffice.
        """
        self.damaged = {name for name, column in self.txn.columns.items() if not _is_whole(column)}
        self._check_base()
        if self.writer.is_untrained:
            return self.done
        self._discard_damaged_codes()
        self._discard_damaged_drift()
        self._restore_ids()
        self._has_new_codes = self._stored(CODES) in self.damaged
        if self._has_new_codes:
            self._make_codes()
        else:
            self._correct_codes()
        self._make_index()
        self._make_fields()
        return self.done

    # --- data that cannot be rebuilt ---

    def _check_base(self) -> None:
        """Raise CorruptError if data is damaged that is not derived from other data."""
        lost = [str(problem) for problem in self.txn.check_sealed("records")]
        if not self.writer.is_untrained:
            base = {self._stored(name) for name in self._base_columns()}
            lost += [f"column {name!r} holds the originals" for name in sorted(base & self.damaged)]
        if lost:
            raise CorruptError(f"this cannot be rebuilt: {'; '.join(lost[:3])}. Restore a backup")

    def _base_columns(self) -> tuple[str, ...]:
        """Columns of vectors that do not follow from others."""
        if self.writer.quantizers.originals is None:
            return (CODES,)
        return (VECTORS,) if self.writer.config.form is None else (CODES, VECTORS)

    def _stored(self, name: str) -> str:
        """Return the name under which an active column is stored."""
        return self.state.column_names.get(name, name)

    @property
    def state(self) -> State:
        """The state that the commit will store."""
        return self.writer.state

    # --- inactive generations ---

    def _discard_damaged_codes(self) -> None:
        damaged, pending = self.damaged - self._columns_of(self.state.column_names), self.state.pending
        if pending is not None and damaged & self._columns_of(pending.built.column_names):
            discard_pending(self.txn)
            self.done.append("the unfinished generation was discarded")
        for record in self.state.generations:
            inactive = record.inactive
            if record.number == self.state.active or not inactive.rows:
                continue
            if damaged & self._columns_of(inactive.column_names):
                discard_codes(self.txn, record)
                self.done.append(f"the codes of generation {record.number}, which is not active, were dropped")

    def _discard_damaged_drift(self) -> None:
        """Delete malformed drift records. Later batches begin new ones."""
        for record in self.state.generations:
            try:
                read_drift_record(self.txn, record.number, self.writer.config.dim)
            except FormatError as error:
                self.txn.delete_record(DRIFT, record.number)
                self.done.append(f"what generation {record.number} knew of drift was dropped: {error}")

    def _columns_of(self, names: Mapping[str, str]) -> set[str]:
        """Return the names under which the columns of a generation are stored."""
        own_names = {stored.partition(".")[0] for stored in self.txn.columns}
        return {names.get(name, name) for name in own_names} | set(names.values())

    # --- rows and their ids ---

    def _restore_ids(self) -> None:
        state, sound = self.state, not list(self.txn.check_sealed("ids"))
        rows = {row: key for key, row in self.txn.iter_ids()} if sound else {}
        whole = not self.damaged & {DELETED, IDS}
        if whole and sound and sorted(rows) == live_rows(self.txn).tolist() and self._ids_agree(rows):
            return
        if sound and len(rows) == state.live and max(rows, default=-1) < state.n:
            self._follow_map(rows)
        elif whole and len(live_rows(self.txn)) == state.live:
            self._make_map()
        else:
            raise CorruptError("both the id map and the rows' own ids are damaged. Restore a backup")

    def _ids_agree(self, rows: dict[int, bytes]) -> bool:
        return IDS not in self.txn.columns or self._keys_of(live_rows(self.txn)) == [rows[row] for row in sorted(rows)]

    def _keys_of(self, rows: NDArray[np.int64]) -> list[bytes]:
        """Return the keys of the ids that are stored with rows."""
        if IDS in self.txn.columns:
            return [key.tobytes()[::-1] for key in self.txn.columns[IDS].read(rows)]
        records = read_records(self.txn, rows.tolist())
        names = [record.id.encode() for record in records if record is not None and record.id is not None]
        if len(names) < len(records):
            raise CorruptError("the record of a row, which has its id, is lost. Restore a backup")
        return names

    def _follow_map(self, rows: dict[int, bytes]) -> None:
        """Rebuild ids and the bitmap of deleted rows from the id map. A row to which no id refers is deleted."""
        n = self.state.n
        live = np.array(sorted(rows), np.int64)
        column = self._renewed(DELETED, bitmap_column(DELETED), words_for(n))
        column.write(0, bytes_of(complement(n, bitmap_of(live, n))))
        if IDS in self.txn.columns:
            column = self._renewed(IDS, narrow_column(IDS, _ID_BYTES), n)
            values = np.frombuffer(b"".join(rows[row][::-1] for row in live.tolist()), np.uint8)
            column.put(live, values.reshape(-1, _ID_BYTES))
        self.done.append(f"the ids of {len(live)} rows and the bitmap of deleted ones, by the id map")

    def _make_map(self) -> None:
        live = live_rows(self.txn)
        named = sorted(zip(self._keys_of(live), live.tolist(), strict=True))
        self.txn.clear("ids")
        self.txn.put_ids([key for key, _ in named], [row for _, row in named])
        self.done.append(f"the id map of {len(live)} rows")

    # --- codes and index ---

    def _make_codes(self) -> None:
        quantizers, live = self.writer.quantizers, live_rows(self.txn)
        column = self._renewed(self._stored(CODES), code_column(CODES, quantizers.codes.codec), self.state.n)
        originals = quantizers.vector_reader(self.writer.columns)
        for start in range(0, len(live), ENCODE_ROWS):
            rows = live[start : start + ENCODE_ROWS]
            column.put(rows, quantizers.codes.encode(originals.quantizer.decode(originals.column.read(rows))))
        self.done.append(f"the codes of {len(live)} rows")

    def _correct_codes(self) -> None:
        """Rewrite codes that are undamaged but wrong, except the codes of deleted rows."""
        corrected = 0
        for rows, codes in wrong_codes(self.txn, self.writer.quantizers):
            self.writer.columns[CODES].put(rows, codes)
            corrected += len(rows)
        if corrected:
            self.done.append(f"the codes of {corrected} rows")

    def _make_index(self) -> None:
        writer, index = self.writer, self.writer.index()
        specs = index.columns(writer.quantizers.codes)
        lacks_codes = self._has_new_codes and self.state.index.tombstones > 0  # deleted rows have no code any more
        if not specs or not (lacks_codes or self._index_is_wrong(set(specs))):
            return
        for name, spec in specs.items():
            self._renewed(self._stored(name), spec, 0)
        writer.change_state(index=index.empty)
        live = live_rows(self.txn).astype(np.uint32)
        if len(live):
            writer.change_state(index=index.extend(writer.index_input(), index.empty, live, self.threads, None))
        self.done.append(f"the index ({index.kind}) of {len(live)} rows")

    def _index_is_wrong(self, names: set[str]) -> bool:
        if {self._stored(name) for name in names} & self.damaged:
            return True
        try:
            return bool(self.writer.index().check(self.writer.index_input(), self.state.index, True))
        except (CorruptError, FormatError):
            return True

    # --- fields ---

    def _make_fields(self) -> None:
        if not self.state.fields or not self._fields_are_wrong():
            return
        for name in self.state.partial_fields:
            FieldWriter(self.txn).drop(name)
            self.done.append(f"the field {name!r}, which was being added, was dropped")
        state = self.state
        self.txn.clear("entries")
        for name, declared in state.fields.items():
            if declared.postings is not None:
                PostingsWriter(self.txn, name).clear()
        for name, spec in field_columns(state).items():
            self._renewed(name, spec, 0)
        fields = FieldWriter(self.txn)
        fields.resize(state.n)
        payloads = dict(self._payloads())
        rows = sorted(payloads)
        fields.change(rows, [], fields.read([payloads[row] for row in rows]))
        self.done.append(f"the indexes of {len(state.fields)} fields")

    def _fields_are_wrong(self) -> bool:
        fields = self.state.fields.values()
        searched = {name for one in fields if one.postings for name in all_columns(one.number, one.postings)}
        if self.damaged & (searched | set(field_columns(self.state))) or list(self.txn.check_sealed("entries")):
            return True
        return bool(list(check_fields_of(self.txn, dict(self._payloads()))))

    def _payloads(self) -> Iterator[tuple[int, dict[str, object] | None]]:
        for row in live_rows(self.txn).tolist():
            if (record := read_record(self.txn, row)) is not None:
                yield row, record.payload

    def _renewed(self, stored: str, spec: ColumnSpec, rows: int) -> Column:
        """Replace a stored column with an empty one of the same name and generation."""
        if stored in self.txn.columns:
            spec = replace(spec, generation=self.txn.columns[stored].generation)
            self.txn.drop_column(stored)
        column = self.txn.add_column(stored, spec)
        column.resize(rows)
        return column


def _is_whole(column: Column) -> bool:
    return all(column.check(block) for block in range(column.n_blocks))
