"""Filters: declared fields of payloads, their indexes, and the language of ``where=``.

- ``schema``: field types, and the keys under which values are indexed; ``language``: parses ``where=`` to a tree of
nodes. - ``postings``, ``values``: the two kinds of index; ``evaluate``: evaluates a tree to a bitmap of rows. -
``maintain``: updates in a write transaction; ``check``: verification.
"""
