"""Guided diffusion."""
