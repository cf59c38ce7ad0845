"""The server's settings: flags win, then `TRIMTAB_*` environment variables, then the TOML file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, ByteSize, Field
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _named_paths(value: object) -> object:
    """`NAME=PATH` strings (a list, or one string with commas between) or a table, as a table."""
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple):
        table: dict[str, str] = {}
        for item in value:
            name, equals, path = str(item).strip().partition("=")
            if not equals or not path:
                raise ValueError(f"{item!r} is not of the form NAME=PATH")
            if name in table:
                raise ValueError(f"the name {name!r} is given twice")
            table[name] = path
        value = table
    if isinstance(value, Mapping):
        for name in value:
            # A colon separates base and adapter in `model`, and `none` labels unsteered requests in the metrics.
            if not _NAME.fullmatch(str(name)) or name == "none":
                raise ValueError(
                    f"{name!r} cannot be a name: letters, digits, '.', '_' and '-' only, and not 'none'"
                )
    return value


def _strings(value: object) -> object:
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


NamedPaths = Annotated[dict[str, str], NoDecode, BeforeValidator(_named_paths)]
Keys = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], NoDecode, BeforeValidator(_strings)]


class Config(BaseSettings):
    """What is served, where and within which limits. Field names are the flags', the variables' and the file's."""

    model_config = SettingsConfigDict(
        env_prefix="TRIMTAB_", extra="forbid", frozen=True, protected_namespaces=()
    )

    model: NamedPaths = Field(
        default_factory=dict, description="bases to serve, NAME=PATH; none: the bundled demo"
    )
    adapter: NamedPaths = Field(
        default_factory=dict, description="adapters to attach to every base, NAME=PATH"
    )
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    api_key: Keys = ()
    device: str = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    max_model_len: int | None = Field(None, ge=1)
    max_num_seqs: int = Field(32, ge=1)
    max_queue: int = Field(256, ge=0, description="sequences that may wait beyond those running")
    max_body_bytes: ByteSize = Field(ByteSize(8 * 2**20), ge=1024)
    kv_cache_memory: ByteSize | None = Field(None, ge=1)
    shutdown_timeout: float = Field(30.0, ge=0, allow_inf_nan=False)


def load_config(file: Path | None = None, **flags: object) -> Config:
    """The settings from flags (None: not given), the environment and the TOML `file`.

    Raises pydantic's `ValidationError` for an unknown key or a value out of range, `FileNotFoundError` for no file.
    """
    if file is not None and not file.is_file():
        raise FileNotFoundError(f"no configuration file {file}")

    class ConfigFromFile(Config):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)

    # The flags' values are the user's own text; pydantic is what checks them.
    values: dict[str, object] = {name: value for name, value in flags.items() if value is not None}
    return ConfigFromFile(**values)  # type: ignore[arg-type]
