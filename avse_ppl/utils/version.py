"""Version of the library, and of what it computes with."""

import importlib.metadata
import platform
import sys

__version__ = "0.1.0"
_PACKAGES = (("torch", "torch"), ("pyro-ppl", "pyro"), ("numpy", "numpy"), ("jax", "jax"),
             ("numpyro", "numpyro"))  # fmt: skip


def list_versions() -> dict[str, str]:
    """List the versions of the library, of Python, and of the packages that compute here.

    Examples
    --------
    >>> list_versions()["avse-ppl"] == __version__
    True
    """
    versions = {"avse-ppl": __version__, "python": platform.python_version()}
    for package, module in _PACKAGES:
        if module in sys.modules:
            try:
                versions[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                versions[package] = "unknown"
    return versions
