"""Codes: configurations, quantizers, calibration, rotations and adapters."""
