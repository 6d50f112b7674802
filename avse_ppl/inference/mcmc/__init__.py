"""Hamiltonian Monte Carlo, by Pyro and by NumPyro."""
