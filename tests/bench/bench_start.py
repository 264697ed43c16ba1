"""The time of `agentft --help`, from the start of Python to its end; run by `make bench`. The target is 0.4 s."""

from __future__ import annotations

import subprocess
import sys
import time

RUNS = 10


def main() -> int:
    """Measure, and print the best and the median time."""
    seconds = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "agentft", "--help"], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - begun)
    seconds.sort()
    sys.stdout.write(f"agentft --help: best {seconds[0]:.3f} s, median {seconds[RUNS // 2]:.3f} s of {RUNS}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
