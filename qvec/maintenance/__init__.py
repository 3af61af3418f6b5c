"""Verify, repair, optimize, delete, requantize and statistics."""
