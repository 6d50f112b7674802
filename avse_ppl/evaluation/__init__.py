"""Metrics, model comparison, diagnostics and calibration."""
