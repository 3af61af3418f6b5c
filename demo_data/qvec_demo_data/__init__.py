"""Passages of Wikipedia and questions, with their embeddings. ``qvec.demo.corpus.load_corpus`` reads them."""

from pathlib import Path

FOLDER = Path(__file__).parent
