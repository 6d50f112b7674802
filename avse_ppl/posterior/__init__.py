"""The posterior over clean speech: moments, draws, files."""
