"""Noise models, and sums of them."""
