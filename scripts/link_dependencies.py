"""Link what the installed wheel declares as its dependencies into its environment, and no more.

Installing PyTorch a second time takes minutes. This links, from the environment that runs it, the
distributions that ``avse-ppl`` requires without extras, and what those require. An import that is
not declared fails there, as it would for a user:
``python link_dependencies.py OTHER_ENVIRONMENT``.
"""

from __future__ import annotations

import sys
import sysconfig
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def read_requirements(dist: Distribution, extras: set[str]) -> list[Requirement]:
    """Requirements of a distribution that hold here, with these extras."""
    requirements = [Requirement(text) for text in dist.requires or ()]
    return [
        r
        for r in requirements
        if r.marker is None or any(r.marker.evaluate({"extra": extra}) for extra in {"", *extras})
    ]


def collect_dependencies(wheel: Distribution) -> dict[str, Distribution]:
    """Distributions that the wheel needs, by name; exits if one is absent or of another version."""
    needed: dict[str, Distribution] = {}
    waiting = [(wheel.metadata["Name"], r) for r in read_requirements(wheel, set())]
    done = set()
    while waiting:
        asker, requirement = waiting.pop()
        if str(requirement) in done:
            continue
        done.add(str(requirement))
        dist = distribution(requirement.name)
        if not requirement.specifier.contains(dist.version, prereleases=True):
            sys.exit(f"{asker} requires {requirement}, but {dist.version} is installed")
        needed[canonicalize_name(requirement.name)] = dist
        waiting += [(requirement.name, r) for r in read_requirements(dist, requirement.extras)]
    return needed


def main() -> None:
    """Link the dependencies of the ``avse-ppl`` in another environment into it."""
    here = Path(sysconfig.get_path("purelib"))
    paths = {"base": sys.argv[1], "platbase": sys.argv[1]}
    there = Path(sysconfig.get_path("purelib", vars=paths))
    (metadata,) = there.glob("avse_ppl-*.dist-info")
    needed = collect_dependencies(PathDistribution(metadata))
    for dist in needed.values():
        for top in {file.parts[0] for file in dist.files or ()} - {"..", "__pycache__"}:
            if not (there / top).exists():
                (there / top).symlink_to(here / top)
    print(f"linked {len(needed)} distributions: {' '.join(sorted(needed))}")


if __name__ == "__main__":
    main()
