"""Attention over `[shared prefix, own tokens]` that stores the prefix only once."""

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
    """Attention of rows after a shared prefix: one softmax over the scores of the prefix and of each row's own keys.

    Args:
        query: `[rows, heads, queries, d]`, already scaled.
        key: `[rows, key heads, keys, d]`, each row's own keys.
        value: like `key`.
        mask: `[rows, 1, queries, keys]`, True where a query attends to an own key. Every query attends to the prefix.
        shared: keys and values of the prefix, `[key heads, prefix, d]` each.

    Returns:
        `[rows, heads, queries, d]`.
    """
    keys, values = shared
    rows, heads, queries, dim = query.shape
    groups = heads // keys.shape[0]
    grouped = query.reshape(rows, keys.shape[0], groups * queries, dim)
    flat = grouped.transpose(0, 1).reshape(keys.shape[0], -1, dim)
    first = (flat @ keys.transpose(1, 2)).view(keys.shape[0], rows, groups * queries, keys.shape[1]).transpose(0, 1)
    own = (grouped @ key.transpose(2, 3)).unflatten(2, (groups, queries))
    own = own.masked_fill(~mask[:, :, None], torch.finfo(own.dtype).min).flatten(2, 3)
    weights = torch.cat([first, own], dim=-1).softmax(dim=-1)
    split = first.shape[-1]
    from_prefix = weights[..., :split].transpose(0, 1).reshape(keys.shape[0], rows * groups * queries, split) @ values
    from_own = weights[..., split:] @ value
    output = from_prefix.view(keys.shape[0], rows, groups * queries, dim).transpose(0, 1) + from_own
    return output.reshape(rows, heads, queries, dim)
