"""NumPyro as a backend of pyroapi: one model text for Pyro on torch and NumPyro on JAX.

Models are written against `pyroapi`, whose ``pyro``, ``dist`` and ``ops`` mean Pyro and torch until
`numpyro_backend` says otherwise:

    from pyroapi import distributions as dist, ops, pyro

``ops`` is torch or ``jax.numpy``: a model keeps to what both have under one name (``exp``,
``log``, ``sqrt``, ``where``, ``clip``, ``sum(x, axis=)``, ``cumsum(x, axis=)``, ``asarray``,
``arange``, ``@``) and changes no array in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyroapi import pyro_backend, register_backend
from pyroapi.dispatch import GenericModule

# pyroapi knows NumPyro by modules that it no longer has.
register_backend(
    "avse_ppl.numpyro",
    {
        "distributions": "numpyro.distributions",
        "handlers": "numpyro.handlers",
        "infer": "numpyro.infer",
        "ops": "jax.numpy",
        "optim": "numpyro.optim",
        "pyro": "numpyro",
    },
)


@contextmanager
def numpyro_backend() -> Iterator[None]:
    """Run models on NumPyro and JAX inside this context.

    Examples
    --------
    >>> on_jax()
    False
    """
    with pyro_backend("avse_ppl.numpyro"):
        yield


def on_jax() -> bool:
    """Whether models run on NumPyro and JAX now."""
    return GenericModule.current_backend["pyro"] == "numpyro"
