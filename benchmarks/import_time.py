"""How long does importing a package take on top of its host? Medians of fresh interpreters.

python benchmarks/import_time.py [--runs 15] [--json]
"""

import argparse
import json
import statistics
import subprocess
import sys

PAIRS = {"langchain_costopt": "langchain_core", "llm_costopt": "sys"}


def measure(package: str, host: str, runs: int) -> float:
    """Return the median milliseconds of importing *package* after *host*."""
    code = f"import {host}, time; t = time.perf_counter(); import {package}; print(1000 * (time.perf_counter() - t))"
    times = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(runs)]
    return statistics.median(times)


def main() -> None:
    """Print a line for each package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = {package: round(measure(package, host, options.runs), 2) for package, host in PAIRS.items()}
    if options.json:
        print(json.dumps({"runs": options.runs, "median_ms": found}))
        return
    for package, median in found.items():
        print(f"{package}: {median:.1f} ms on top of {PAIRS[package]} (median of {options.runs})")


if __name__ == "__main__":
    main()
