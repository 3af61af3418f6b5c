"""Recall, evaluation and choice of codes, tuning and drift."""
