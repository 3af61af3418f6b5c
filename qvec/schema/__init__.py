"""Configuration, state and columns of a collection."""
