"""Recall, bytes and latency of every code measured on the collection's own data, and the choice among them."""
