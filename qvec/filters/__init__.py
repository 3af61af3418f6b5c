"""Filters: declared fields of payloads, their indexes, and the language that asks for rows by them."""
