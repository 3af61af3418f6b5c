"""One LMDB file: its guards, its locks, blocks and their directory, snapshots and transactions (docs/format.md)."""
