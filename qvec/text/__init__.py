"""Text and sparse fields: posting lists of terms, in segments (docs/adr/0021, docs/format.md).

- ``options``: declarations of fields; ``analysis``: converts text to terms; ``sparse``: sparse vectors as payload
values. - ``segments``: the columns of segments; ``writer``: changes in a write transaction. - ``reader``: the lists of
a snapshot; ``check``: verification.
"""
