"""Training: from a recipe to a run folder with an adapter."""

from __future__ import annotations

import logging

# On import, deepspeed (if installed) writes a useless warning to stdout, which is for results, and bitsandbytes one to
# stderr. This needs a filter, because deepspeed sets its logger's level itself.
for _name in ("DeepSpeed", "bitsandbytes.backends.cpu.ops", "accelerate"):
    logging.getLogger(_name).addFilter(lambda record: record.levelno >= logging.ERROR)
