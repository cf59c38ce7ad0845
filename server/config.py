"""The server's settings, from flags, `TRIMTAB_*` environment variables and a TOML file, in this order of precedence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from server.names import check_name


def _named_paths(value: object) -> object:
    """A table of names and paths, from a table, a list of `NAME=PATH`, or one string of them with commas between."""
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
            check_name(str(name))
    return value


def _strings(value: object) -> object:
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


def _directories(value: tuple[str, ...]) -> tuple[str, ...]:
    for directory in value:
        if not Path(directory).is_dir():
            raise ValueError(f"there is no directory {directory!r}")
    return value


NamedPaths = Annotated[dict[str, str], NoDecode, BeforeValidator(_named_paths)]
Key = Annotated[str, Field(min_length=1)]
Strings = Annotated[tuple[Key, ...], NoDecode, BeforeValidator(_strings)]
Directories = Annotated[Strings, AfterValidator(_directories)]


class Config(BaseSettings):
    """All settings. Flags, environment variables and keys of the file have the names of the fields."""

    model_config = SettingsConfigDict(
        env_prefix="TRIMTAB_", extra="forbid", frozen=True, protected_namespaces=()
    )

    model: NamedPaths = Field(
        default_factory=dict, description="bases to serve, NAME=PATH; by default the demo `tiny`"
    )
    demo: Literal["tiny", "smollm2"] | None = Field(
        None, description="a demo to serve beside the named bases: `tiny`, or `smollm2`, a real LLM"
    )
    adapter: NamedPaths = Field(
        default_factory=dict, description="adapters to attach to every base, NAME=PATH"
    )
    adapters_dir: Directories = Field(
        (), description="directories from which adapters may be loaded at run time"
    )
    adapter_store: str | None = Field(
        None,
        min_length=1,
        description="a file that says which adapters are served, for all processes that are given it; a path, or a "
        "URL of fsspec such as s3://bucket/adapters.json",
    )
    host: str = Field("127.0.0.1", description="the address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="the port to listen on; 0 for any free port")
    api_key: Strings = Field(
        (),
        repr=False,
        description="keys of clients, of which a request must bear one; without keys everybody may use the server",
    )
    admin_key: Key | None = Field(
        None,
        repr=False,
        description="the key that a request must bear to change adapters; without it nobody can",
    )
    cors_origin: Strings = Field((), description="web origins whose pages may call the server; '*' for any")
    device: str = Field(
        "auto", description="`auto` (the first GPU, else the CPU), `cpu`, `cuda`, `cuda:1` ..."
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="the type of the weights; `auto` is the one in the model's configuration"
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="threads that compute on a CPU; by default as many as the affinity mask and the CPU quota allow",
    )
    replicas: int = Field(
        1,
        ge=1,
        description="processes that serve, each with models and pages of its own; more than 1 needs the extra `ray`",
    )
    max_replicas: int | None = Field(
        None,
        ge=1,
        description="the most replicas that are started as the load grows; by default their number is fixed",
    )
    max_model_len: int | None = Field(
        None,
        ge=1,
        description="the most tokens of a prompt and its answer together; by default the model's own limit",
    )
    max_num_seqs: int = Field(32, ge=1, description="the most sequences that run at once, for each base")
    max_queue: int = Field(
        256, ge=0, description="the most sequences that wait while others run, for each base"
    )
    max_share_per_key: float = Field(
        1.0,
        gt=0,
        le=1,
        description="the largest share of the running and waiting sequences that one API key may have; without keys, "
        "that one address may have",
    )
    max_body_bytes: ByteSize = Field(
        ByteSize(8 * 2**20), ge=1024, description="the largest body of a request"
    )
    max_prompt_bytes: ByteSize = Field(
        ByteSize(2**20), ge=1, description="the longest text of one prompt, before it is tokenized"
    )
    max_connections: int | None = Field(
        None,
        ge=1,
        description="the most open connections; by default, and at most, as many as the file descriptors allow",
    )
    head_timeout: float = Field(
        10.0,
        gt=0,
        allow_inf_nan=False,
        description="seconds within which the head of a request must arrive",
    )
    keep_alive_timeout: float = Field(
        75.0,
        gt=0,
        allow_inf_nan=False,
        description="seconds after which a connection without a request is closed; more than a proxy's in front",
    )
    body_timeout: float = Field(
        30.0, gt=0, allow_inf_nan=False, description="seconds within which a request's body must arrive"
    )
    request_timeout: float = Field(
        600.0,
        gt=0,
        allow_inf_nan=False,
        description="seconds from a request's arrival within which its reply must end",
    )
    send_timeout: float = Field(
        30.0,
        gt=0,
        allow_inf_nan=False,
        description="seconds after which a client that does not read its reply is dropped",
    )
    max_backlog: int = Field(
        1024, ge=1, description="the most outputs of a sequence that wait for a slow client"
    )
    reasoning_parser: Literal["think", "qwen3", "deepseek_r1"] | None = Field(
        None,
        description="tell thoughts in `<think>` tags from the text of chat answers; the other names are those that "
        "clients of vLLM know",
    )
    kv_cache_memory: ByteSize | None = Field(
        None,
        ge=1,
        description="memory for each base's KV cache; by default 80% of a GPU's free memory, or up to 1 GiB on a CPU",
    )
    enforce_eager: bool = Field(
        False,
        description="on a GPU, launch every operation separately: record no passes, and run no base a step ahead",
    )
    shutdown_timeout: float = Field(
        30.0,
        ge=0,
        allow_inf_nan=False,
        description="seconds that running requests have left when the server is told to stop",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least severe messages that are logged"
    )
    log_json: bool = Field(False, description="log one JSON object per line")
    metrics_compat: Literal["none", "vllm"] = Field(
        "none", description="other names under which `/metrics` has what routers read: `vllm` for vLLM's"
    )
    traces: bool = Field(False, description="send OpenTelemetry traces to where the OTEL_* variables say")

    @model_validator(mode="after")
    def _check_replicas(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"`max_replicas` is {self.max_replicas}, less than `replicas`, {self.replicas}")
        return self


def load_config(file: Path | None = None, **flags: object) -> Config:
    """The settings from `flags`, of which None is one that was not given, the environment and the TOML `file`.

    Raises pydantic's `ValidationError` for an unknown key or a value out of range, and `FileNotFoundError` where `file`
    does not exist.
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

    # The values are still what the user typed: pydantic checks and converts them.
    values: dict[str, object] = {name: value for name, value in flags.items() if value is not None}
    return ConfigFromFile(**values)  # type: ignore[arg-type]
