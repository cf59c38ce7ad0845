"""Single tokens as bytes and as text, for logprobs and the tokenizer routes."""

from __future__ import annotations

from mapping_cache import CanonicalVocabulary


def token_bytes(vocabulary: CanonicalVocabulary, token_id: int) -> bytes | None:
    """The bytes of a token; for a special token those of its surface; None for an id that has neither."""
    if token_id in vocabulary.specials:
        return vocabulary.specials[token_id].encode()
    return vocabulary.tokens[token_id] if 0 <= token_id < len(vocabulary) else None


def token_text(vocabulary: CanonicalVocabulary, token_id: int) -> str:
    """A token as text; bytes that are not UTF-8 by themselves, such as half a character, become `bytes:\\xe2\\x82`."""
    content = token_bytes(vocabulary, token_id)
    if content is None:
        return f"<token {token_id}>"
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
