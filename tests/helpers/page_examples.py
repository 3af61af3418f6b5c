"""The Python of the README and of pages of the documentation, as programs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PROMISED = re.compile(r"^(?P<code>.*print\(.*\))  # (?P<output>.*)$", re.MULTILINE)
DOCS = Path(__file__).parents[2] / "docs"
PAGES_WITH_PACKAGES = {  # pages whose examples need packages that only `make frameworks` installs
    "tutorials/frameworks.md": ("langchain_core", "llama_index.core", "haystack"),
    "tutorials/moving.md": ("chromadb", "faiss", "lancedb"),
    "tutorials/quantization-aware-training.md": ("torch",),
    "tutorials/shards.md": ("ray",),
}
PAGES = [
    "index.md",
    "getting-started.md",
    "agents.md",
    *(f"tutorials/{page.name}" for page in sorted((DOCS / "tutorials").glob("*.md"))),
]
SENTENCE_TRANSFORMERS = '''
"""A stand-in for the model all-MiniLM-L6-v2: the words of a text, hashed."""
import zlib

import numpy as np
from numpy.typing import NDArray


class SentenceTransformer:
    prompts: dict[str, str] = {}

    def __init__(self, name: str) -> None:
        assert name == "all-MiniLM-L6-v2"

    def encode(
        self, texts: list[str], show_progress_bar: bool = False, normalize_embeddings: bool = False
    ) -> NDArray[np.float32]:
        vectors = np.full((len(texts), 384), 0.01, np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for word in text.lower().strip(".?").split():
                vector[zlib.crc32(word[:5].encode()) % 384] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
'''


def blocks(language: str, page: Path) -> list[str]:
    return [text for name, text in FENCED.findall(page.read_text()) if name == language]


def python_of(page: Path) -> str:
    return "\n".join(blocks("python", page))


def add_model(folder: Path) -> None:
    """Put a stand-in for sentence-transformers next to a program."""
    (folder / "sentence_transformers.py").write_text(SENTENCE_TRANSFORMERS)


def run_page(page: Path, folder: Path) -> None:
    """Run the Python of a page in a folder, and compare what it prints with its comments."""
    source = python_of(page)
    add_model(folder)
    program = folder / "example.py"
    program.write_text(source)
    done = subprocess.run([sys.executable, program.name], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for match in PROMISED.finditer(source):
        assert match["output"] in lines, f"{match['code']} does not print {match['output']}; printed: {lines}"
