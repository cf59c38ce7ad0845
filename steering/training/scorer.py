"""A model as a module that scores only the response tokens of a batch."""

from __future__ import annotations

from typing import Any

import torch

# The largest difference between the output layer's logits and the model's own, relative to the largest logit.
_TOLERANCE = 1e-4


class ResponseScorer(torch.nn.Module):
    """Computes the logits from which each response token is drawn: `[response tokens, V]`.

    The output layer runs at those positions only, which saves much memory if the vocabulary is large. A model that does
    more to its logits than that layer (soft caps, scales) is detected at the start, and runs whole. This is a module
    because `accelerate` synchronises the gradients of several processes around a module's forward pass.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self._plain = _has_plain_head(model)

    def forward(self, ids: torch.Tensor, attention: torch.Tensor, response: torch.Tensor) -> torch.Tensor:
        """The logits; `ids`, `attention` and `response` are `[rows, length]`, as in `Batch`."""
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
    """Whether the model's logits are its output layer applied to its decoder's last hidden state."""
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
