"""Training objectives and the order of their phases, one family of models a file."""
