"""Files of weights: reading, writing, importing published ones."""
