"""One forward pass of a decoder over packed tokens: transformers' own code, or ours with fewer operations.

A tiny model's pass spends its time on calling operations, not on their arithmetic. transformers calls about fifty per
layer. A decoder of the Llama family, as nearly all steering models and many bases are, needs half as many.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from steering.model.attention import AttentionPlan, attend
from steering.model.packed_linear import LazilyPacked, Product, pack_linears, product

# The layers of these families are exactly: norm, attention without query or key norms, norm, gated SiLU.
_FUSIBLE = ("llama", "mistral", "qwen2")


class Forward(Protocol):
    """A decoder's pass over one packed batch."""

    def __call__(self, tokens: Tensor, positions: Tensor, wanted: Tensor, plan: AttentionPlan) -> Tensor:
        """Compute logits `[N, V]`, in the model's dtype, of the tokens at the indices `wanted`.

        tokens and positions int64 `[T]`, wanted int64 `[N]`.
        """


def forward_of(model: Any) -> Forward:
    """The cheapest pass that computes a model, which must run on paged attention already.

    The model itself is unusable afterwards: the pass takes its weights or repacks them.
    """
    if _is_fusible(model):
        return FusedForward(model)
    pack_linears(model)
    return TransformersForward(model)


def _is_fusible(model: Any) -> bool:
    config = model.config
    if config.model_type not in _FUSIBLE or config.hidden_act != "silu":
        return False
    if config.model_type == "mistral" and config.sliding_window is not None:
        return False
    layers = model.model.layers
    # Quantised and other special layers have the same names, but their weights mean something else.
    plain = [model.lm_head, *(part for layer in layers for part in _projections(layer))]
    return all(type(part) is nn.Linear for part in plain) and not any(
        getattr(layer.self_attn, "sliding_window", None) for layer in layers
    )


def _projections(layer: Any) -> list[nn.Module]:
    attention, mlp = layer.self_attn, layer.mlp
    return [
        *(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
        *(mlp.gate_proj, mlp.up_proj, mlp.down_proj),
    ]


class TransformersForward:
    """The model's own forward pass."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, tokens: Tensor, positions: Tensor, wanted: Tensor, plan: AttentionPlan) -> Tensor:
        """Call the model; the plan reaches its attention as a keyword argument."""
        output = self._model(
            input_ids=tokens[None],
            position_ids=positions[None],
            use_cache=False,
            logits_to_keep=wanted,
            trimtab_plan=plan,
        )
        logits: Tensor = output.logits[0]
        return logits


class FusedForward:
    """The pass of the Llama family with joined projections. It takes the weights out of the model."""

    def __init__(self, model: Any) -> None:
        self._model = model.model
        head = model.lm_head
        tied = head.weight.data_ptr() == self._model.embed_tokens.weight.data_ptr()
        # A tied output embedding also stays in its plain layout, as the input embedding.
        self._head = LazilyPacked(head.weight, head.bias) if tied else _take(head)
        self._layers = [_Layer(layer) for layer in model.model.layers]

    def __call__(self, tokens: Tensor, positions: Tensor, wanted: Tensor, plan: AttentionPlan) -> Tensor:
        """Run every layer, then the norm and the output embedding on the wanted tokens alone."""
        states = self._model.embed_tokens(tokens)
        cos, sin = (part[0, :, None] for part in self._model.rotary_emb(states, positions[None]))
        # Rotary embedding rolls by half and negates the first half. Negating the sine instead costs once per pass.
        signed = torch.cat((-sin[..., : sin.shape[-1] // 2], sin[..., sin.shape[-1] // 2 :]), dim=-1)
        for number, layer in enumerate(self._layers):
            states = layer(states, cos, signed, number, plan)
        norm = self._model.norm
        kept = states if len(wanted) == len(tokens) else states[wanted]
        kept = functional.rms_norm(kept, kept.shape[-1:], norm.weight, norm.variance_epsilon)
        return self._head(kept)

    def release_packed_weights(self) -> None:
        """Free the packed copy of a tied output embedding; the next pass packs it again."""
        if isinstance(self._head, LazilyPacked):
            self._head.release()


class _Layer:
    """One decoder layer: its joined weights and its attention's dimensions."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._norms = layer.input_layernorm, layer.post_attention_layernorm
        self._head_dim = attention.head_dim
        self._scale = attention.scaling
        self._rotated = (attention.q_proj.out_features + attention.k_proj.out_features) // self._head_dim
        self._queries = attention.q_proj.out_features // self._head_dim
        self._qkv = _take(attention.q_proj, attention.k_proj, attention.v_proj)
        self._out = _take(attention.o_proj)
        self._gate_up = _take(mlp.gate_proj, mlp.up_proj)
        self._down = _take(mlp.down_proj)

    def __call__(self, states: Tensor, cos: Tensor, sin: Tensor, number: int, plan: AttentionPlan) -> Tensor:
        """Map states `[T, hidden]` to the next layer's; cos and signed sin `[T, 1, head_dim]`."""
        before, after = self._norms
        normed = functional.rms_norm(states, states.shape[-1:], before.weight, before.variance_epsilon)
        qkv = self._qkv(normed).view(len(states), -1, self._head_dim)
        unrotated = qkv[:, : self._rotated]
        rotated = torch.addcmul(unrotated * cos, unrotated.roll(self._head_dim // 2, -1), sin)
        attended = attend(
            plan,
            number,
            rotated[:, : self._queries],
            rotated[:, self._queries :],
            qkv[:, self._rotated :],
            self._scale,
        )
        states = states + self._out(attended.flatten(1))
        normed = functional.rms_norm(states, states.shape[-1:], after.weight, after.variance_epsilon)
        gate, up = self._gate_up(normed).chunk(2, dim=-1)
        return states + self._down(functional.silu(gate) * up)


def _take(*linears: Any) -> Product:
    """Join several projections of one input into one product, their weights and biases concatenated by rows.

    The model loses these weights: both packed and plain, they would be in memory twice.
    """
    weight = torch.cat([linear.weight.data for linear in linears])
    bias = None if linears[0].bias is None else torch.cat([linear.bias.data for linear in linears])
    for linear in linears:
        linear.weight = nn.Parameter(weight.new_empty(0), requires_grad=False)
    return product(weight, bias)
