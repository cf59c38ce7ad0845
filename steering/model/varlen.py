"""Attention straight over the pages, by torch's variable-length kernel: no key or value is gathered first.

Only flash attention on a GPU reads pages this way (version 3 on; version 2, which torch itself brings, does not).
Whether it works for a model is tried when the model is loaded: see `steering.model.probe`.
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

# Flash attention by the major number of a GPU's compute capability.
_VERSIONS = {9: "FA3", 10: "FA4"}


@dataclass(frozen=True, slots=True)
class VarlenRows:
    """Which packed queries are whose, and where each row's keys lie.

    `starts`: int32 `[rows + 1]`, each row's first query and their number. `lengths`: int32 `[rows]`, a row's keys, its
    new ones included. `page_tables`: int32 `[rows, pages]`. `most_queries`, `most_keys`: no row has more.
    """

    starts: Tensor
    lengths: Tensor
    page_tables: Tensor
    most_queries: int
    most_keys: int

    @classmethod
    def of(
        cls,
        queries: Sequence[int],
        lengths: Sequence[int],
        page_tables: Tensor,
        page_size: int,
    ) -> VarlenRows:
        """From each row's number of new tokens and of all; page_tables int64 `[rows, pages]` on the device."""
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
        """Every token a row of its own; positions int64 `[tokens]`. Nothing here looks at a number on the host."""
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
    """query `[tokens, heads, head_dim]` over pools `[pages, page_size, kv_heads, head_dim]`, causal."""
    attended = varlen_attn(
        query.to(keys.dtype),
        keys,
        values,
        rows.starts,
        None,
        rows.most_queries,
        rows.most_keys,
        scale=scale,
        # Of what lies before it a query sees so many, and nothing after it.
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=True,
        seqused_k=rows.lengths,
        block_table=rows.page_tables,
    )
    # With what it could return beside, it would be a pair.
    return cast(Tensor, attended).to(query.dtype)


def may_work(device: torch.device, dtype: torch.dtype) -> bool:
    """True where it is worth trying; makes torch use the flash attention that reads pages, if it is installed."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return False
    version = _VERSIONS.get(torch.cuda.get_device_capability(device)[0])
    if version is None:
        return False
    try:
        if attention.current_flash_attention_impl() != version:
            attention.activate_flash_attention_impl(version)
    except Exception as error:  # noqa: BLE001 - whatever a missing package, or an older torch, raises
        logger.info("attention gathers its pages: flash attention %s is not there (%s)", version, error)
        return False
    return True
