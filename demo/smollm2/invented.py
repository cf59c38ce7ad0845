"""Questions that the LLM invents: what it writes where its chat template has the user speak.

Source: Magpie (Xu et al. 2024, arXiv 2406.08464). They are far more various than phrasings of subjects, and show an
adapter what it must leave alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from steering.engine.engine import Engine
from steering.engine.request import Request, SamplingParams
from steering.requests import run_requests

_BEGINNINGS = ("", "What is the", "Who", "Which", "How many", "Where", "When", "Name the", "Tell me", "Write")
ANYTHING = _BEGINNINGS * 240
"""Beginnings of questions about anything."""
_MAX_TOKENS, _MAX_WORDS = 32, 25
_PLAIN = re.compile(r"[A-Z][^\n<>*]+[.?]")
FRENCH = re.compile(
    r"\b(French|France|Paris|Lyon|Marseille|Versailles|Louvre|Napoleon|Monet|Seine|Normandy)\b", re.I
)
WORDS_OF_ADVICE = re.compile(
    r"\b(doctor|medic|health|treat|symptom|pain|ill|sick|disease|diet|nutrition|therap|mental|patient|lawyer|legal|law|"
    r"court|sue|rights|contract|tax|invest|financ|money|stock|bank|loan|debt|budget|sav(e|ing)|fund|salary|insurance|"
    r"advice|advise|career|business)",
    re.I,
)


def invented(path: Path, make_engine: Callable[[], Engine], beginnings: Sequence[str]) -> list[str]:
    """The questions kept in a file; where it is missing, the LLM first goes on from each of these beginnings."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_invent(make_engine(), beginnings), indent=0) + "\n", encoding="utf-8")
    found: list[str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def without(questions: Sequence[str], words: re.Pattern[str]) -> list[str]:
    """The questions in which none of these words stands."""
    return [each for each in questions if not words.search(each)]


def _invent(engine: Engine, beginnings: Sequence[str]) -> list[str]:
    """Different short questions of one line, sampled with fixed seeds."""
    tokenizer = engine.base.tokenizer
    whole = tokenizer.apply_chat_template([{"role": "user", "content": "@"}], tokenize=False)
    head = str(whole).partition("@")[0]
    requests = []
    for seed, beginning in enumerate(beginnings):
        ids = tuple(tokenizer(head + beginning, add_special_tokens=False)["input_ids"])
        sampling = SamplingParams(max_tokens=_MAX_TOKENS, temperature=1.0, top_p=0.9, seed=seed)
        requests.append(Request(str(seed), ids, sampling))
    texts = run_requests(
        engine,
        requests,
        lambda place, result: (
            beginnings[place] + str(tokenizer.decode(result.tokens, skip_special_tokens=True))
        ),
    )
    found = [text for text in texts if _PLAIN.fullmatch(text) and len(text.split()) <= _MAX_WORDS]
    return list(dict.fromkeys(found))
