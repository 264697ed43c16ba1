"""Training: from a recipe to a run folder with an adapter."""

from __future__ import annotations

import logging


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


# On import, deepspeed (if installed) writes a useless warning to stdout, which is for results, and bitsandbytes one to
# stderr. This needs a filter, because deepspeed sets its logger's level itself.
for _name in ("DeepSpeed", "bitsandbytes.backends.cpu.ops", "accelerate"):
    logging.getLogger(_name).addFilter(_is_error)
