"""The roles of special tokens: beginning of text, end of text or turn, padding, unknown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROLES = ("eos", "bos", "pad", "unk")

# Surfaces of special tokens in released chat models, by role. A tokenizer names one token per role, but its chat
# template often uses others.
_SURFACES: Mapping[str, frozenset[str]] = {
    "eos": frozenset({
        "</s>", "<eos>", "[EOS]", "<|eos|>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>",
        "<|eom_id|>", "<|eot|>", "<|eom|>", "<end_of_turn>", "<turn|>", "<|end|>", "<|return|>",
        "<|end_of_turn|>", "<|endofturn|>", "<|END_OF_TURN_TOKEN|>", "<EOS_TOKEN>", "<|end_of_sentence|>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>", "<|end_of_message|>", "<EOT>", "<|EOT|>",
    }),
    "bos": frozenset({
        "<s>", "<bos>", "[BOS]", "<|bos|>", "<|begin_of_text|>", "<|startoftext|>", "<BOS_TOKEN>",
        "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
    }),
    "pad": frozenset({"<pad>", "[PAD]", "<|pad|>", "<PAD>", "<|finetune_right_pad_id|>", "<|vision_pad|>"}),
    "unk": frozenset({"<unk>", "[UNK]", "<|unk|>", "<UNK>"}),
}  # fmt: skip

# An encoder model's tokenizer has no bos or eos; texts begin and end with these instead.
_STAND_INS = {"bos": "cls_token", "eos": "sep_token"}


def find_roles(
    tokenizer: Any, specials: Mapping[int, str], unk_token: str | None
) -> tuple[dict[str, frozenset[int]], dict[str, int]]:
    """The ids of each role and the main id of each role that has one.

    `specials` gives the surface of each special id. The main id is the one that the tokenizer's attribute names, such
    as `eos_token`; otherwise the lowest id whose surface is known for that role. `unk_token`, the model's own unknown
    token, counts where the tokenizer names none.
    """
    roles: dict[str, frozenset[int]] = {}
    main: dict[str, int] = {}
    ids = {surface: token for token, surface in sorted(specials.items(), reverse=True)}
    for role in ROLES:
        named = _named(tokenizer, f"{role}_token")
        if named is None and role in _STAND_INS:
            named = _named(tokenizer, _STAND_INS[role])
        if named is None and role == "unk":
            named = unk_token
        found = {token for token, surface in specials.items() if surface in _SURFACES[role]}
        if named is not None and named in ids:
            main[role] = ids[named]
            found.add(ids[named])
        elif found:
            main[role] = min(found)
        roles[role] = frozenset(found)
    return roles, main


def _named(tokenizer: Any, attribute: str) -> str | None:
    value = getattr(tokenizer, attribute, None)
    return None if value is None else str(value)
