"""Training: from a recipe to an adapter in a run folder."""

from __future__ import annotations

import logging


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


# On import deepspeed (if it is there) writes a warning to stdout and bitsandbytes one to stderr, neither of use to
# anyone; stdout belongs to results. A filter, because deepspeed sets its logger's level itself.
for _name in ("DeepSpeed", "bitsandbytes.backends.cpu.ops", "accelerate"):
    logging.getLogger(_name).addFilter(_is_error)
