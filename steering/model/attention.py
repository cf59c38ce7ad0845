"""Attention over a packed batch and a paged pool, registered with transformers' `AttentionInterface`.

A model runs on `[1, tokens]`: the new tokens of all rows, one after another. Everything but attention treats tokens
independently. The attention function is ours. An `AttentionPlan`, which reaches it as a keyword argument of the model's
forward pass, says which token belongs to which row and in which pages the row's keys and values lie.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

from steering.model.kv_cache import KVCache
from steering.model.varlen_attention import VarlenRows, varlen_attention

ATTENTION_NAME = "trimtab_paged"


@dataclass(slots=True)
class RowGroup:
    """Rows of similar query length, padded to one rectangle.

    `queries`: int64 `[rows, width]`, indices into the packed tokens; a row is padded with its first query.
    `positions`: int64 `[rows, width]`, each query's position in its row.
    `unpadded`: int64 `[tokens]`, indices into the flattened rectangle of the queries that are not padding; None where
    the rectangle has no padding.
    `page_tables`: int64 `[rows, pages]`; a row is padded with its first page, which the mask hides.
    `masks`: the masks made so far in this pass.
    """

    queries: Tensor
    positions: Tensor
    unpadded: Tensor | None
    page_tables: Tensor
    masks: dict[tuple[int | None, int, torch.dtype], Tensor] = field(default_factory=dict)

    def mask(self, length: int, window: int | None, heads_per_kv: int, dtype: torch.dtype) -> Tensor:
        """`[rows, 1, heads_per_kv * width, length]`: 0 where a query attends to a position of its row, -inf elsewhere.

        `heads_per_kv`: the number of query heads per key/value head; `_attend` folds them into the queries.
        All layers of one window share a mask.
        """
        mask = self.masks.get((window, heads_per_kv, dtype))
        if mask is None:
            keys = torch.arange(length, device=self.positions.device)
            seen = keys <= self.positions[..., None]
            if window is not None:
                seen &= keys > self.positions[..., None] - window
            mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, float("-inf"))
            mask = mask[:, None].repeat(1, 1, heads_per_kv, 1)
            self.masks[window, heads_per_kv, dtype] = mask
        return mask


@dataclass(slots=True)
class AttentionPlan:
    """The attention inputs of one forward pass: the pool, each new token's slot in it, and the rows.

    `slots`: int64 `[tokens]`. `groups`: the rows in groups whose pages are gathered. `is_uniform`: there is one group,
    and its queries are the packed tokens in their order. `varlen`: the rows for a kernel that reads pages in place;
    `groups` is then empty.
    """

    cache: KVCache
    slots: Tensor
    groups: list[RowGroup]
    is_uniform: bool
    varlen: VarlenRows | None = None

    @classmethod
    def of_single_tokens(
        cls, cache: KVCache, positions: Tensor, slots: Tensor, page_tables: Tensor, *, varlen: bool
    ) -> AttentionPlan:
        """Make every token a row of its own: positions and slots int64 `[tokens]`, page_tables int64 `[tokens, pages]`.

        The new tokens of one text may be several such rows: a layer stores all keys and values before it attends.
        """
        if varlen:
            rows = VarlenRows.of_single_tokens(positions, page_tables, cache.allocator.page_size)
            return cls(cache, slots, [], is_uniform=False, varlen=rows)
        queries = torch.arange(len(positions), device=positions.device)
        group = RowGroup(queries[:, None], positions[:, None], None, page_tables)
        return cls(cache, slots, [group], is_uniform=True)


def paged_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    trimtab_plan: AttentionPlan | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend from the new tokens to the paged keys and values of their rows.

    query `[1, heads, tokens, head_dim]`, key and value `[1, kv_heads, tokens, head_dim]`
    -> `[1, tokens, heads, head_dim]`.
    `sliding_window`, `softcap` (Gemma 2) and `s_aux` (attention sinks, one logit per head) come from the model.
    Raises RuntimeError where the model does not pass the plan on.
    """
    if trimtab_plan is None:
        raise RuntimeError("the model does not hand keyword arguments on to its attention function")
    queries, keys, values = (part[0].transpose(0, 1) for part in (query, key, value))
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    output = attend(trimtab_plan, layer, queries, keys, values, scale, sliding_window, softcap, s_aux)
    return output[None], None


def attend(
    plan: AttentionPlan,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Store the new keys and values; attend from every new token to its row's earlier positions and itself.

    query `[tokens, heads, head_dim]`, key and value `[tokens, kv_heads, head_dim]` -> `[tokens, heads, value_dim]`.
    Raises NotImplementedError where the variable-length kernel lacks something that the model needs.
    """
    keys, values = plan.cache.write(layer, plan.slots, key, value)
    if plan.varlen is not None:
        if softcap is not None or sinks is not None:
            raise NotImplementedError("the variable-length kernel has no soft-capped scores and no sinks")
        return varlen_attention(query, keys, values, plan.varlen, scale, sliding_window)
    if plan.is_uniform:
        group = plan.groups[0]
        rows, width = group.positions.shape
        rectangle = query.reshape(rows, width, *query.shape[1:])
        return _attend(rectangle, keys, values, group, scale, sliding_window, softcap, sinks).flatten(0, 1)
    output = query.new_empty(*query.shape[:2], values.shape[-1])
    for group in plan.groups:
        rectangle = query[group.queries]
        attended = _attend(rectangle, keys, values, group, scale, sliding_window, softcap, sinks)
        tokens, attended = group.queries.flatten(), attended.flatten(0, 1)
        if group.unpadded is not None:
            tokens, attended = (
                tokens.index_select(0, group.unpadded),
                attended.index_select(0, group.unpadded),
            )
        output.index_copy_(0, tokens, attended)
    return output


def _attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    group: RowGroup,
    scale: float,
    window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Gather the group's pages and attend: `[rows, width, heads, head_dim]` -> `[rows, width, heads, value_dim]`."""
    rows, width, heads, head_dim = query.shape
    kv_heads = keys.shape[2]
    heads_per_kv = heads // kv_heads
    pages = group.page_tables.flatten()
    past_keys = keys.index_select(0, pages).view(rows, -1, kv_heads, head_dim).transpose(1, 2)
    past_values = values.index_select(0, pages).view(rows, -1, kv_heads, values.shape[-1]).transpose(1, 2)
    # Query heads of one key/value head become extra queries, so that its keys need no copy for each of them.
    folded = query.view(rows, width, kv_heads, heads_per_kv, head_dim).permute(0, 2, 3, 1, 4)
    folded = folded.reshape(rows, kv_heads, heads_per_kv * width, head_dim)
    folded = folded.to(keys.dtype)
    mask = group.mask(past_keys.shape[2], window, heads_per_kv, folded.dtype)
    if softcap is None and sinks is None:
        out = functional.scaled_dot_product_attention(
            folded, past_keys, past_values, attn_mask=mask, scale=scale
        )
    else:
        out = _explicit_attention(folded, past_keys, past_values, mask, scale, softcap, sinks, width)
    out = out.to(query.dtype).view(rows, kv_heads, heads_per_kv, width, -1).permute(0, 3, 1, 2, 4)
    return out.reshape(rows, width, heads, -1)


def _explicit_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
    width: int,
) -> Tensor:
    """Attention with soft-capped scores and sinks, which the fused kernels lack."""
    scores = (query @ keys.transpose(-1, -2)) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = (scores + mask).float()
    if sinks is not None:
        sink = sinks.float().view(1, keys.shape[1], -1).repeat_interleave(width, dim=2)
        scores = torch.cat([scores, sink.expand(scores.shape[0], -1, -1)[..., None]], dim=-1)
    weights = scores.softmax(dim=-1).to(values.dtype)
    return weights[..., : keys.shape[2]] @ values


def register() -> None:
    """Register the attention function with transformers under ATTENTION_NAME. Further calls change nothing."""
    # cuDNN plans anew for each shape, and every page that a row gains makes a new shape.
    torch.backends.cuda.enable_cudnn_sdp(False)
    AttentionInterface.register(ATTENTION_NAME, paged_attention)
