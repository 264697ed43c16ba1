"""`python -m agentft`."""

from __future__ import annotations

from agentft.commands import main

if __name__ == "__main__":
    main()
