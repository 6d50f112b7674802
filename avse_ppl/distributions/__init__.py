"""The complex Gaussian distribution, on torch and JAX, and the registration of NumPyro with pyroapi."""
