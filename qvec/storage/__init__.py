"""Access to one LMDB file: checks, locks, blocks and the page table, snapshots and transactions (docs/format.md)."""
