"""The look-up of weak matches in the sample text, over four small tokenizers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from examples import map_text
from mapping_cache import map_vocabularies
from tests.models import tokenizer_byte_level, tokenizer_sentencepiece


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizers")
    tokenizer_sentencepiece().save_pretrained(folder / "llama-2")
    for name, size in {"gpt2": 300, "llama-3": 350, "qwen": 400}.items():
        tokenizer_byte_level(size).save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize("method", ["pm-mined", "mined"])
def test_it_prints_matches_by_kind_and_by_pair(
    tokenizers: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    map_text.main([str(tokenizers), "--method", method])
    kinds, pairs = capsys.readouterr().out.split("\n\n")
    shares = [float(found[1]) for found in re.finditer(r"\| ([\d.]+)% \|", kinds)]
    assert sum(shares) == pytest.approx(100, abs=0.1 * len(shares))
    exact = re.search(r"\| exact \| ([\d.]+)% \| (\d+)% of ([\d,]+) \|", kinds)
    assert exact is not None and float(exact[1]) > 50 and 0 < int(exact[2]) <= 100
    rows = [line.strip("| ").split(" | ") for line in pairs.splitlines()[2:]]
    assert len(rows) == 12 and len({(row[0], row[1]) for row in rows}) == 12
    crowds = {(row[0], row[1]): [float(cell.replace(",", "")) for cell in row[6:]] for row in rows}
    # Letting weaker matches through takes none away, and each token of a cut vocabulary is in the whole one.
    assert all(crowd == sorted(crowd) for crowd in crowds.values())
    assert crowds["gpt2", "qwen"][0] <= 1 <= crowds["qwen", "gpt2"][0]


def test_a_match_is_right_where_the_steering_tokenizer_has_it(tokenizers: Path) -> None:
    same = map_text.read(tokenizers / "gpt2")
    vocabulary_map = map_vocabularies(same.vocabulary, same.vocabulary)
    seen, right = map_text.compare(same, same, vocabulary_map)
    assert seen == right and set(seen) == {"exact"}
