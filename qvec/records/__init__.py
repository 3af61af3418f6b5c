"""Rows and their records: read, written, and held against what leads to them."""
