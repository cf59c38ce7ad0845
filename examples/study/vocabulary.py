"""A published BPE vocabulary, cut to the tokens that a text uses most, so that it fits a small model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ 'Answer:\n' + message['content'] + eos_token }}"
    "{% else %}{{ 'Question: ' + message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\nAnswer:\n' }}{% endif %}"
)


def cut(folder: Path, texts: Sequence[str], size: int) -> PreTrainedTokenizerFast:
    """The tokenizer of `folder` with at most `size` tokens.

    Characters and bytes, which no merge makes, stay where the text or byte fallback needs them. Then come the tokens
    that the text uses most, each with the parts that it is merged from. Raises ValueError for anything but a BPE
    tokenizer, and for a size that does not hold the characters.
    """
    whole = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    if whole["model"]["type"] != "BPE":
        raise ValueError(f"{folder}: only a BPE vocabulary can be cut")
    vocab: dict[str, int] = whole["model"]["vocab"]
    merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in whole["model"]["merges"]]
    parents: dict[str, tuple[str, str]] = {}
    for left, right in merges:
        parents.setdefault(left + right, (left, right))
    special = [each["content"] for each in whole["added_tokens"]]
    used = _uses(folder, texts)
    written = {part for token in used for part in _makings(token, parents)} - parents.keys()
    kept = written | {token for token in vocab if _is_byte(token, whole)} | set(special)
    if len(kept) > size:
        raise ValueError(f"{folder}: {len(kept)} characters, bytes and special tokens do not fit into {size}")
    for token, _ in used.most_common():
        needed = _makings(token, parents) - kept
        if len(kept) + len(needed) <= size:
            kept |= needed
    return _rebuild(whole, kept, [pair for pair in merges if {*pair, "".join(pair)} <= kept], special)


def _uses(folder: Path, texts: Sequence[str]) -> Counter[str]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return Counter(token for each in encoded for token in each.tokens)


def _makings(token: str, parents: dict[str, tuple[str, str]]) -> set[str]:
    """A token, and all tokens that it is merged from."""
    found, pending = set(), [token]
    while pending:
        part = pending.pop()
        if part not in found:
            found.add(part)
            pending += parents.get(part, ())
    return found


def _is_byte(token: str, whole: dict[str, Any]) -> bool:
    """True for `<0x41>` with byte fallback, and for single characters of the byte alphabet without."""
    if whole["model"].get("byte_fallback"):
        return len(token) == 6 and token.startswith("<0x")
    return len(token) == 1


def _rebuild(
    whole: dict[str, Any], kept: set[str], merges: list[tuple[str, ...]], special: list[str]
) -> PreTrainedTokenizerFast:
    everything = {
        **whole["model"]["vocab"],
        **{each["content"]: each["id"] for each in whole["added_tokens"]},
    }
    ids = {token: number for number, token in enumerate(sorted(kept, key=everything.__getitem__))}
    whole["model"]["vocab"] = {token: ids[token] for token in ids if token in whole["model"]["vocab"]}
    whole["model"]["merges"] = [list(pair) for pair in merges]
    for each in whole["added_tokens"]:
        each["id"] = ids[each["content"]]
    # The post-processor has the old ids of special tokens. The chat template writes these tokens itself.
    whole["post_processor"] = None
    tokenizer = Tokenizer.from_str(json.dumps(whole))
    ends = [token for token in special if token not in ("<unk>", "<s>")]
    begins = [token for token in special if token == "<s>"] or ends
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=begins[0],
        eos_token=ends[0],
        pad_token=ends[0],
        unk_token="<unk>" if "<unk>" in special else ends[0],
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
