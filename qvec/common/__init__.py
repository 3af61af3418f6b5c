"""Modules that all of qvec uses: errors, types, plain data, tables, threads."""

__version__ = "0.1.0.dev0"
