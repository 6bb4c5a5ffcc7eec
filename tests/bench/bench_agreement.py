"""Coverage of every interval of the agreement package: 2 000 simulated data sets each, nominal 95 %.

An interval that covers the truth in fewer than 93 or more than 97 % of the runs is named; the bench
fails if there is one.
"""

from __future__ import annotations

import time

from acceptance.test_agreement_coverage import INTERVALS, coverage

RUNS = 2000
LOW, HIGH = 0.93, 0.97


def main() -> None:
    """Simulate, and print the coverage of every interval."""
    outside = []
    for name in sorted(INTERVALS):
        start = time.process_time()
        found = coverage(name, RUNS)
        verdict = "" if LOW <= found <= HIGH else "   OUTSIDE"
        outside += [name] if verdict else []
        seconds = time.process_time() - start
        print(f"{name:<32} covers {100 * found:5.1f} %   {seconds:6.1f} s{verdict}", flush=True)
    if outside:
        raise SystemExit(f"coverage outside {LOW:.0%} to {HIGH:.0%}: {', '.join(outside)}")


if __name__ == "__main__":
    main()
