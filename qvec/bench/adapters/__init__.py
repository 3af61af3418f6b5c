"""Adapters of the benchmark, one file per library: how it builds, searches and saves."""
