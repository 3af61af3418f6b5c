"""Ranges of dimensions learned from a sample: the methods, and the object that keeps what they found."""
