"""Filters: declared fields of payloads, their indexes, and the language of ``where=``.

- ``schema``: field types, and the keys that values are indexed by; ``language``: ``where=`` to a tree of nodes.
- ``postings``, ``values``: the two kinds of index; ``evaluate``: a tree to a bitmap of rows.
- ``maintain``: updates in a write transaction; ``check``: verification.
"""
