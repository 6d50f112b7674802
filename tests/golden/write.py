"""Write the golden values, or say how the present ones differ.

``python tests/golden/write.py [NAME ...]`` computes and stores the named cases, or all of them;
``--check`` stores nothing and says of each whether it is the same to the bit, or how far off it is.
A name may be the beginning of several, as ``svi-`` is.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.golden.cases import Case
    from tests.golden.store import Difference

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Compute, then compare or store; 1 if anything differs or fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("names", nargs="*", help="cases, or what their names begin with")
    parser.add_argument("--check", action="store_true", help="compare, and store nothing")
    parser.add_argument("--fast", action="store_true", help="leave out the slow ones")
    arguments = parser.parse_args()
    _as_under_pytest()

    from tests.golden.cases import CASES, compute
    from tests.golden.store import Golden

    names = _chosen(list(CASES), arguments.names)
    golden, failed = Golden.load(), 0
    for name in names:
        if arguments.fast and CASES[name].slow:
            continue
        begin = time.perf_counter()
        try:
            values = compute(name)
        except Exception as error:
            failed += 1
            print(f"{name}: FAILED, {type(error).__name__}: {error}", flush=True)
            continue
        found = golden.difference(name, values)
        failed += arguments.check and not found.equal
        cost_s = time.perf_counter() - begin
        print(f"{name}: {_verdict(found, CASES[name])}  [{cost_s:.2f} s]", flush=True)
        if not arguments.check:
            golden.put(name, values)
    if not arguments.check:
        for gone in set(golden.told) - set(CASES):
            del golden.told[gone]
        golden.save()
    print(f"{failed} of {len(names)} {'differ' if arguments.check else 'failed'}")
    return int(failed > 0)


def _as_under_pytest() -> None:
    """Set what `conftest.py` sets: how JAX compiles changes the last bits."""
    sys.path.insert(0, str(ROOT))
    import conftest

    os.environ.setdefault("XLA_FLAGS", conftest._COMPILE_SOON)
    programs = ROOT / ".pytest_cache" / "d" / "jax"
    if programs.is_dir():
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(programs))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def _chosen(cases: Sequence[str], given: Sequence[str]) -> list[str]:
    """Cases that were named, exactly or by their beginning."""
    unknown = [g for g in given if not any(name.startswith(g) for name in cases)]
    if unknown:
        raise SystemExit(f"no case begins with {', '.join(unknown)}; there are {', '.join(cases)}")
    exact = {g for g in given if g in cases}
    return [
        name
        for name in cases
        if not given or name in exact or any(name.startswith(g) for g in given if g not in exact)
    ]


def _verdict(found: Difference, case: Case) -> str:
    if found.equal:
        return "bit-equal"
    far = found.beyond(case.tolerance, case.spared, case.held)
    said = "; ".join(["", *far]) if far else ", within tolerance"
    return f"max relative difference {found.largest:.2g}{said}"


if __name__ == "__main__":
    raise SystemExit(main())
