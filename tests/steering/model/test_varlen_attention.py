"""Attention that reads pages in place: the plans for torch's variable-length kernel, with an exact stand-in for it.

The kernel itself runs on a GPU only, in `test_on_a_gpu.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from steering.device.execution import Execution
from steering.engine.engine import Engine, EngineConfig
from steering.model import attention_check, varlen_attention
from steering.model.kv_cache import KVCache
from steering.model.loading import load_model
from steering.model.pages import PageAllocator
from steering.model.row_input import RowInput
from steering.model.runner import Runner
from tests.models import ARCHITECTURES
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop, request, run, tokenizer_of
from tests.steering.tape import TapeCapture

SOFT_CAPPED = "gemma2"


def kernel(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    *,
    scale: float,
    window_size: tuple[int, int],
    enable_gqa: bool,
    seqused_k: Tensor,
    block_table: Tensor,
) -> Tensor:
    """`varlen_attn` as torch documents it, row by row; the last query of a row is aligned with its last key."""
    assert cu_seq_k is None and enable_gqa
    assert {cu_seq_q.dtype, seqused_k.dtype, block_table.dtype} == {torch.int32}
    shared = query.shape[1] // keys.shape[2]
    out = torch.empty_like(query)
    for row, (start, stop) in enumerate(zip(cu_seq_q.tolist(), cu_seq_q.tolist()[1:], strict=False)):
        length = int(seqused_k[row])
        assert stop - start <= max_q and length <= max_k
        key, value = (
            pool[block_table[row].long()].flatten(0, 1)[:length].repeat_interleave(shared, 1).transpose(0, 1)
            for pool in (keys, values)
        )
        at = torch.arange(length - (stop - start), length)[:, None]
        key_at = torch.arange(length)
        left = length if window_size[0] < 0 else window_size[0]
        seen = (key_at <= at + window_size[1]) & (key_at >= at - left)
        attended = functional.scaled_dot_product_attention(
            query[start:stop].transpose(0, 1), key, value, attn_mask=seen, scale=scale
        )
        out[start:stop] = attended.transpose(0, 1)
    return out


@pytest.fixture(autouse=True)
def _kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen_attention, "varlen_attn", kernel)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_in_place_equals_gathered(workshop: Workshop, arch: str) -> None:
    gathered = workshop.loaded(Tiny(arch, "sp"))
    in_place = replace(gathered, varlen=True)

    def logits(loaded: Any) -> list[Tensor]:
        runner = Runner(loaded, KVCache(PageAllocator(64, 4)))
        pages = [runner.cache.allocator.allocate(6) for _ in range(3)]
        found = [
            runner.forward([RowInput(range(3, 14), 0, pages[0], 2), RowInput([9], 0, pages[1], 0)]),
            runner.forward([RowInput([8, 7, 6, 5], 0, pages[2], 0), RowInput([5, 6], 1, pages[1], 1)]),
        ]
        found += [
            runner.forward([RowInput([t], 11 + t, pages[0], 0), RowInput([t + 1], 4 + t, pages[2], 0)])
            for t in range(8)
        ]
        return found

    if arch == SOFT_CAPPED:
        with pytest.raises(NotImplementedError, match="soft-capped"):
            logits(in_place)
        return
    for got, expected in zip(logits(in_place), logits(gathered), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("arch", ["llama", SOFT_CAPPED])
def test_a_model_attends_in_place_where_that_gives_the_same(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, arch: str
) -> None:
    """A model gathers its pages where the kernel is wrong, raises, or lacks something that the model needs."""
    monkeypatch.setattr(attention_check, "activate_flash_attention", lambda device, dtype: True)
    folder = workshop.folder(Tiny(arch, "sp"))
    assert load_model(folder, device="cpu", dtype="float32").varlen == (arch != SOFT_CAPPED)
    monkeypatch.setattr(varlen_attention, "varlen_attn", lambda query, *_, **__: query * 2)
    assert not load_model(folder, device="cpu", dtype="float32").varlen
    monkeypatch.delattr(varlen_attention, "varlen_attn")
    assert not load_model(folder, device="cpu", dtype="float32").varlen


def test_single_tokens_in_place_need_nothing_of_the_host(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan of a captured pass. The kernel is left out, because its stand-in reads values on the host."""
    monkeypatch.setattr(varlen_attention, "varlen_attn", lambda query, *_, **__: query * 2)
    base = workshop.loaded(Tiny("llama", "sp"))
    capture = TapeCapture()
    runner = Runner(replace(base, varlen=True), KVCache(PageAllocator(32, 4)), capture)
    pages = runner.cache.allocator.allocate(4)
    for position in range(12):
        runner.forward([RowInput([position + 3], position, pages, 0)])
    # Twelve tokens need up to three pages, which are padded to four: one size. The first pass creates the pool.
    assert capture.captured == 1


def test_a_whole_engine_in_place(workshop: Workshop, make_engine: MakeEngine) -> None:
    plain = make_engine(Tiny("mistral", "bl"))
    base = replace(workshop.loaded(Tiny("mistral", "bl")), varlen=True)
    in_place = Engine(
        base, EngineConfig(page_size=4, max_num_seqs=3, max_step_tokens=9), Execution(runs_ahead=True)
    )
    texts = ("The ferry left the harbour at nine", "Once upon a time", "def area(w):")
    requests = [request(text, tokenizer_of("bl").encode(text), count=12) for text in texts]
    expected, got = run(plain, requests), run(in_place, requests)
    assert {name: result.tokens for name, result in got.items()} == {
        name: result.tokens for name, result in expected.items()
    }
