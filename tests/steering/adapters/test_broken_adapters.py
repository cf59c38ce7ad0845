"""A folder that contradicts itself is refused, with a message that names the fault."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from steering.adapters import load_adapter
from steering.errors import AdapterLoadError
from tests.broken_adapters import FAULTS
from tests.steering.support import Tiny, Workshop

# These are about a folder that is not there, or about words that the server adds.
ELSEWHERE = ("missing",)


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - set(ELSEWHERE)))
def test_a_broken_folder_is_refused(workshop: Workshop, tmp_path: Path, fault: str) -> None:
    whole = workshop.folder(Tiny("llama", "bl", seed=2))
    folder = shutil.copytree(whole, tmp_path / "steer-broken")
    shutil.copytree(whole, tmp_path / "steer")
    assert load_adapter("whole", folder, device="cpu").models
    damage, words = FAULTS[fault]
    damage(folder)
    with pytest.raises(AdapterLoadError) as caught:
        load_adapter("broken", folder, device="cpu")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 2000
