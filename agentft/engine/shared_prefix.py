"""Attention over `[shared prefix, own tokens]` with the prefix kept once: what decoding and training both stand on."""

from __future__ import annotations

import torch

__all__ = ["attend_after"]


def attend_after(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    shared: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Attention of rows that follow one shared prefix: one softmax over its scores and each row's own.

    Args:
        query: `[rows, heads, queries, d]`, scaled already.
        key: `[rows, key heads, keys, d]`, each row's own.
        value: as `key`.
        mask: `[rows, 1, queries, keys]`, True = may look at the own key. The prefix is seen whole.
        shared: the prefix's keys and values, `[key heads, prefix, d]` each.

    Returns:
        `[rows, heads, queries, d]`.
    """
    keys, values = shared
    rows, heads, queries, dim = query.shape
    groups = heads // keys.shape[0]
    grouped = query.reshape(rows, keys.shape[0], groups * queries, dim)
    together = grouped.transpose(0, 1).reshape(keys.shape[0], -1, dim)
    first = (together @ keys.transpose(1, 2)).view(keys.shape[0], rows, groups * queries, keys.shape[1]).transpose(0, 1)
    own = (grouped @ key.transpose(2, 3)).unflatten(2, (groups, queries))
    own = own.masked_fill(~mask[:, :, None], torch.finfo(own.dtype).min).flatten(2, 3)
    weights = torch.cat([first, own], dim=-1).softmax(dim=-1)
    split = first.shape[-1]
    of_prefix = weights[..., :split].transpose(0, 1).reshape(keys.shape[0], rows * groups * queries, split) @ values
    of_own = weights[..., split:] @ value
    mixed = of_prefix.view(keys.shape[0], rows, groups * queries, dim).transpose(0, 1) + of_own
    return mixed.reshape(rows, heads, queries, dim)
