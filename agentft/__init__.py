"""agentft: tune small open models to call tools, and measure whether it helped."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
