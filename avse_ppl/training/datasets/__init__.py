"""Training examples cut out of the caches: speech, audio-visual crops, clips of lips."""
