"""Type I error and coverage of every primary method at 60 participants, nominal 5 and 95 %.

2000 simulated trials without and 2000 with an effect. An exact test leaves a window of 4 to 6 % by
chance once in 25 benches of 2000 runs, so a method outside is decided on 10 000 fresh trials
(Monte-Carlo error 0.22 %). The bench fails if one stays outside.

    PYTHONPATH=tests:workflow/scripts python tests/bench/bench_pharmacodynamics.py [RUNS] [METHOD ...]
"""

from __future__ import annotations

import sys
import time

from pd_error_rates import AGAIN, METHODS, RUNS, Rates, rates, standard_error


def output(found: Rates, runs: int) -> str:
    """Rates with their Monte-Carlo standard error, percent."""
    error = "      " if found.error != found.error else f"{100 * found.error:5.1f} "
    covered = " ".join(f"{100 * share:5.1f}" for share in found.coverage) or "    -"
    spread = 100 * standard_error(0.05, runs)
    computed = "" if found.computed == 1 else f"   computed in {100 * found.computed:.1f} %"
    return f"error {error} coverage {covered:<11} (MC error {spread:.2f}){computed}"


def main(runs: int = RUNS, names: list[str] | None = None) -> None:
    """Simulate, and print error rate and coverage of every method."""
    outside = []
    for name in names or METHODS:
        start = time.process_time()
        found = rates(name, runs)
        line = f"{name:<32} {output(found, runs)}"
        if not found.honest:
            found = rates(name, AGAIN, seed=61)
            line += f"\n{'  again, ' + str(AGAIN) + ' runs':<32} {output(found, AGAIN)}"
        verdict = "" if found.honest else "   OUTSIDE"
        outside += [name] * bool(verdict)
        print(f"{line}   {time.process_time() - start:6.1f} s{verdict}", flush=True)
    if outside:
        raise SystemExit(f"error rate outside 4 to 6 % or coverage 93 to 97 %: {outside}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS, sys.argv[2:] or None)
