"""Settings: flags go before the environment, the environment before the file; mistakes are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from server.config import load_config


def test_flags_win_then_the_environment_then_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "trimtab.toml"
    file.write_text(
        'host = "file"\nport = 1\nmax_queue = 1\nkv_cache_memory = "2GiB"\n[model]\na = "/models/a"\n'
    )
    monkeypatch.setenv("TRIMTAB_PORT", "2")
    monkeypatch.setenv("TRIMTAB_MAX_QUEUE", "2")
    monkeypatch.setenv("TRIMTAB_ADAPTER", "x=/x,y=/y")
    monkeypatch.setenv("TRIMTAB_CACHE", "/not/a/setting")
    config = load_config(file, max_queue=3, host=None)
    assert (config.host, config.port, config.max_queue) == ("file", 2, 3)
    assert config.model == {"a": "/models/a"}
    assert config.adapter == {"x": "/x", "y": "/y"}
    assert config.kv_cache_memory == 2 * 2**30


def test_named_paths_as_flags_give_them() -> None:
    assert load_config(model=["a=/m=1", "b=org/model"]).model == {"a": "/m=1", "b": "org/model"}


@pytest.mark.parametrize(
    "flags",
    [
        {"model": ["a"]},
        {"model": ["a="]},
        {"model": ["a=1", "a=2"]},
        {"model": ["a:b=1"]},
        {"adapter": ["none=1"]},
        {"port": 70_000},
        {"dtype": "int4"},
        {"max_num_seqs": 0},
        {"shutdown_timeout": float("inf")},
        {"api_key": [""]},
        {"admin_key": ""},
        {"adapters_dir": ["/not/a/directory"]},
        {"adapter": ["several=1"]},
        {"request_timeout": 0},
        {"log_level": "loud"},
        {"colour": "red"},
    ],
    ids=str,
)
def test_mistakes_are_refused(flags: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        load_config(None, **flags)


def test_keys_are_not_shown() -> None:
    config = load_config(api_key=["open-sesame"], admin_key="abracadabra")
    assert "sesame" not in repr(config)
    assert "abracadabra" not in repr(config)


def test_an_unknown_key_in_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "trimtab.toml"
    file.write_text('colour = "red"\n')
    with pytest.raises(ValidationError, match="colour"):
        load_config(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_config(tmp_path / "nothing.toml")
