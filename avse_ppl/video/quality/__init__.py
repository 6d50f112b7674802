"""The visual quality score, from the reliability network."""
