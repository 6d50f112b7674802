"""Quality score of the lips, by the reliability network."""
