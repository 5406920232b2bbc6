"""Names to prompts: llm.md 2.2 as tables and properties."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydns.actors.llm.messages import PROMPT_SIZE_MAX
from raydns.actors.query.llm_front.names import Asked, Zones, asked_of, key_of, prompt_of
from raydns.schemas import names
from raydns.schemas.config.llm import LLMConfig


def labels(text: str) -> list[bytes]:
    """The labels of a name as people write it."""
    return names.labels(names.from_text(text))


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("what.is.rust", "what is rust"),
        ("what-is-rust", "what is rust"),
        ("what_is_rust", "what is rust"),
        ("what is rust", "what is rust"),
        ("WhAt.iS.rUsT", "what is rust"),
        ("helLO wOrlD  tWIce", "hello world twice"),
        ("wi--fi.is.what", "wi-fi is what"),
        ("a---b", "a--b"),
        ("-5", "-5"),
        ("what.is.-5", "what is -5"),
        ("trailing-", "trailing-"),
        (r"version\.1", "version.1"),
        (r"tab\009and\010newline\000nul", "tab and newlinenul"),
        ("größe", "größe"),
        (r"gr\246\223e", "größe"),  # latin-1
        ("xn--gre-6ka8i", "größe"),
        ("XN--GRE-6KA8I", "größe"),
        ("xn--what is caf-lbb", "what is café"),
        (r"xn--\255", "xn-ÿ"),
        ("ﬁle.①", "file 1"),  # NFKC
        ("ÜBER", "über"),
        ("日本.の.首都", "日本 の 首都"),
        (r"zero\226\128\139width", "zerowidth"),
        (r"\226\128\174evil", "evil"),
        ("  spaces   inside ", "spaces inside"),
        (r"\000\001", ""),
        ("İstanbul", "i̇stanbul"),
    ],
)
def test_prompts(name: str, prompt: str) -> None:
    """Each spelling gives its prompt."""
    assert prompt_of(labels(name)) == unicodedata.normalize("NFKC", prompt)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("_help", Asked(help=True)),
        ("_HELP", Asked(help=True)),
        ("what._help", Asked(help=True)),
        ("_help.what", Asked(reserved=True)),
        ("_acme-challenge", Asked(reserved=True)),
        ("_acme-challenge.www", Asked(reserved=True)),
        ("_dmarc", Asked(reserved=True)),
        ("selector1._domainkey", Asked(reserved=True)),
        ("_sip._tcp", Asked(reserved=True)),
        ("nbswy3dp._32", Asked(reserved=True)),
        ("what.is.rust._p2", Asked(reserved=True)),
        ("what.is.rust._u", Asked(reserved=True)),
        ("what._m-fast", Asked(reserved=True)),
        ("what.is._c-123", Asked(reserved=True)),
        ("what.is.rust", Asked("what is rust")),
        ("what.is_it", Asked("what is it")),
        (r"\000", Asked(help=True)),
    ],
)
def test_reserved_labels_never_reach_a_model(name: str, asked: Asked) -> None:
    """Underscore labels are service names or ours; only words become prompts, nothing becomes help."""
    assert asked_of(labels(name)) == asked


def test_longest_names() -> None:
    """63-octet labels and a 255-octet name are prompts like any other, within the request's bound."""
    longest = names.from_labels([b"a" * 63, b"b" * 63, b"c" * 63, b"d" * 61])
    assert len(longest) == 255
    assert len(prompt_of(names.labels(longest))) == 253
    worst = names.from_labels(["ﷺ".encode() * 21, "ﷺ".encode() * 21, "ﷺ".encode() * 21, "ﷺ".encode() * 20])
    assert len(prompt_of(names.labels(worst))) > PROMPT_SIZE_MAX, "the front cuts such a one"


@given(st.lists(st.binary(min_size=1, max_size=63), min_size=1, max_size=4))
def test_any_octets(parts: list[bytes]) -> None:
    """No label raises; a prompt has no control character and no run of spaces, and is its own normal form."""
    prompt = prompt_of(parts)
    assert not [c for c in prompt if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}]
    assert "  " not in prompt
    assert prompt == prompt.strip()
    assert unicodedata.is_normalized("NFKC", prompt) or not prompt.isprintable()
    asked_of(parts)


@given(st.lists(st.from_regex(rb"[a-z0-9][a-z0-9_ -]{0,20}", fullmatch=True), min_size=1, max_size=5), st.randoms())
def test_mixed_case_is_one_prompt(parts: list[bytes], rng: object) -> None:
    """0x20 variants of a name have one key."""
    choice = rng.random  # type: ignore[attr-defined]
    mixed = [bytes(o ^ 0x20 if 97 <= o <= 122 and choice() < 0.5 else o for o in part) for part in parts]
    if any(part[:4].lower() == b"xn--" for part in parts):
        return  # RFC 3492: the delta part of Punycode is case-insensitive, the literal part keeps its case
    assert prompt_of(mixed) == prompt_of(parts)


def test_keys_tell_prompts_models_and_system_prompts_apart() -> None:
    """A key changes with each of its parts and with nothing else."""
    config = LLMConfig()
    keys = {
        key_of(config, "", "a"),
        key_of(config, "", "b"),
        key_of(config, "fast", "a"),
        key_of(LLMConfig(system_prompt="x"), "", "a"),
    }
    assert len(keys) == 4
    assert key_of(config, "", "a") == key_of(LLMConfig(max_tokens=7), "", "a")
    assert len(key_of(config, "", "ü\ud800")) == 32


def test_zones_and_suffixes() -> None:
    """The longest zone wins; suffixes go, and an LLM zone before a suffix with them."""
    zones = Zones(LLMConfig(zones=("llm.example.", "a.llm.example."), strip_suffixes=("corp.local.", "local.")))

    def key(text: str) -> bytes:
        return names.key(names.from_text(text))

    assert zones.zone_of(key("x.a.llm.example")) == key("a.llm.example")
    assert zones.zone_of(key("llm.example")) == key("llm.example")
    assert zones.zone_of(key("notllm.example")) is None
    assert zones.stripped(key("what.is.rust.corp.local")) == key("what.is.rust")
    assert zones.stripped(key("what.is.rust.local")) == key("what.is.rust")
    assert zones.stripped(key("what.is.rust.llm.example.corp.local")) == key("what.is.rust")
    assert zones.stripped(key("corp.local")) == key("corp")
    assert zones.stripped(key("what.is.rust")) == key("what.is.rust")
    assert Zones(LLMConfig(enabled=False)).zone_of(key("x.llm.example")) is None
