"""The complex Gaussian distribution on torch and JAX, and NumPyro as a backend of pyroapi."""
