"""Output files: checked first, written atomically."""
