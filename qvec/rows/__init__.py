"""Reading and writing rows: vectors, codes, payloads and ids."""
