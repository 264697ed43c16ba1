"""`agentft` and `python -m agentft`. Nothing is imported before Ctrl-C is handled."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line, with an open stdin, stdout and stderr."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed (`>&-`); the lowest free descriptor is the one that is missing
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
            os.set_inheritable(getattr(sys, name).fileno(), True)
    try:
        from agentft.commands import main as command

        command()
    except KeyboardInterrupt:  # the libraries are still being imported
        os.write(2, b"interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
