"""The trained model as a module of its own: from a batch to the scores of its response tokens."""

from __future__ import annotations

from typing import Any

import torch

# How far a plain output layer may be from the model's own logits, relative to the largest.
_TOLERANCE = 1e-4


class ResponseScorer(torch.nn.Module):
    """Scores from which each response token is drawn: `[response tokens, V]`.

    The output layer runs on those positions only, which matters where the vocabulary is large. A model that does more
    to its logits than that layer (soft caps, scales) is found out once, and runs whole. It is a module so that
    gradients of several processes meet in its forward pass.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self._plain = _has_plain_head(model)

    def forward(self, ids: torch.Tensor, attention: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
        """`ids`, `attention` and `response` as in `Batch`."""
        wanted = response[:, 1:]
        model: Any = self.model
        if not self._plain:
            whole: torch.Tensor = model(input_ids=ids, attention_mask=attention, use_cache=False).logits
            return whole[:, :-1][wanted]
        hidden = model.get_decoder()(
            input_ids=ids, attention_mask=attention, use_cache=False
        ).last_hidden_state
        logits: torch.Tensor = model.get_output_embeddings()(hidden[:, :-1][wanted])
        return logits


@torch.no_grad()
def _has_plain_head(model: Any) -> bool:
    training = model.training
    model.eval()
    ids = torch.arange(4, device=model.device).unsqueeze(0)
    expected = model(input_ids=ids, use_cache=False).logits.float()
    try:
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        found = model.get_output_embeddings()(hidden).float()
    except (AttributeError, RuntimeError, TypeError):
        return False
    finally:
        model.train(training)
    if found.shape != expected.shape:
        return False
    return float((found - expected).abs().max()) <= _TOLERANCE * max(1.0, float(expected.abs().max()))
