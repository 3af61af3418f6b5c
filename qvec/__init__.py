"""qvec: an embedded vector database with quantized storage."""

__version__ = "0.1.0"
