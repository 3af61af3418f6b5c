"""Generations of codes: what the state says of them, and their calibrations."""
