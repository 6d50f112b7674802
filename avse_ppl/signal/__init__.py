"""Waveforms and their short-time Fourier transform."""
