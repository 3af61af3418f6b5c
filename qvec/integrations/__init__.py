"""qvec in the frameworks that build on vector stores; each module needs the extra of its name."""
