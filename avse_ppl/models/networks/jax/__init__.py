"""JAX counterparts of the decoder networks."""
