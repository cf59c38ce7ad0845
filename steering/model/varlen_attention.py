"""Attention that reads the pages in place, by torch's variable-length kernel; no keys or values are gathered.

Only flash attention on a GPU, version 3 or later, reads pages this way. Version 2, which torch bundles, does not.
`steering.model.attention_check` tries at load whether a model works with it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import attention
from torch.nn.attention.varlen import varlen_attn

from steering.device.transfer import on_device

logger = logging.getLogger(__name__)

# The flash attention implementation for the major version of a GPU's compute capability.
_VERSIONS = {9: "FA3", 10: "FA4"}


@dataclass(frozen=True, slots=True)
class VarlenRows:
    """The rows of a packed batch: their queries and their page tables.

    `starts`: int32 `[rows + 1]`, the index of each row's first query, then the number of all queries.
    `lengths`: int32 `[rows]`, each row's number of keys, new ones included.
    `page_tables`: int32 `[rows, pages]`.
    `max_queries`, `max_keys`: upper bounds for a row.
    """

    starts: Tensor
    lengths: Tensor
    page_tables: Tensor
    max_queries: int
    max_keys: int

    @classmethod
    def of(
        cls,
        queries: Sequence[int],
        lengths: Sequence[int],
        page_tables: Tensor,
        page_size: int,
    ) -> VarlenRows:
        """Build from each row's number of new tokens and of all its tokens; page_tables int64 `[rows, pages]`."""
        starts = [0]
        for count in queries:
            starts.append(starts[-1] + count)
        device = page_tables.device
        return cls(
            on_device(starts, device, torch.int32),
            on_device(lengths, device, torch.int32),
            page_tables.int(),
            max(queries),
            page_tables.shape[1] * page_size,
        )

    @classmethod
    def of_single_tokens(cls, positions: Tensor, page_tables: Tensor, page_size: int) -> VarlenRows:
        """Make every token a row of its own; positions int64 `[tokens]`. No value is read on the host."""
        return cls(
            torch.arange(len(positions) + 1, device=positions.device, dtype=torch.int32),
            (positions + 1).int(),
            page_tables.int(),
            1,
            page_tables.shape[1] * page_size,
        )


def varlen_attention(
    query: Tensor, keys: Tensor, values: Tensor, rows: VarlenRows, scale: float, window: int | None
) -> Tensor:
    """Causal attention of query `[tokens, heads, head_dim]` over pools `[pages, page_size, kv_heads, head_dim]`."""
    attended = varlen_attn(
        query.to(keys.dtype),
        keys,
        values,
        rows.starts,
        None,
        rows.max_queries,
        rows.max_keys,
        scale=scale,
        # How many keys a query sees before its own position (-1: all of them), and how many after it.
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=True,
        seqused_k=rows.lengths,
        block_table=rows.page_tables,
    )
    # The kernel's type allows a pair, which it returns only where more than the output is asked for.
    return cast(Tensor, attended).to(query.dtype)


def activate_flash_attention(device: torch.device, dtype: torch.dtype) -> bool:
    """Make torch use the flash attention that reads pages; returns False where device, dtype or package rule it out."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return False
    version = _VERSIONS.get(torch.cuda.get_device_capability(device)[0])
    if version is None:
        return False
    try:
        if attention.current_flash_attention_impl() != version:
            attention.activate_flash_attention_impl(version)
    except Exception as error:  # noqa: BLE001 - a missing package or an older torch may raise anything
        logger.info("attention gathers its pages: flash attention %s is not installed (%s)", version, error)
        return False
    return True
