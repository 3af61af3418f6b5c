"""Import and export of rows: files that other programs read, and files of other vector stores."""

from qvec.interchange.base import Batch, Source
from qvec.interchange.copying import Copied, add_from, create_for
from qvec.interchange.exporting import Exported, ExportFormat, export
from qvec.interchange.sources import SourceFormat, open_source

__all__ = [
    "Batch",
    "Copied",
    "ExportFormat",
    "Exported",
    "Source",
    "SourceFormat",
    "add_from",
    "create_for",
    "export",
    "open_source",
]
