"""The process in which `agentft bench train` measures."""

from __future__ import annotations

import sys

from agentft.bench.train import run_bench
from agentft.commands import exit_code
from agentft.display.terminal import say

if __name__ == "__main__":
    sys.exit(exit_code(lambda: run_bench(sys.argv[1:], say)))
