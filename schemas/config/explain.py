"""What pydantic refuses, in the words of an operator: the value, what is wrong with it, what to write instead."""

from __future__ import annotations

import math
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from raydns.schemas.config.options import field_at, model_at, suggest
from raydns.schemas.config.problems import value_text

Path = tuple[str | int, ...]

_PLAIN: Final = {
    "int_parsing": "is not a whole number",
    "int_type": "is not a whole number",
    "int_from_float": "is not a whole number",
    "int_parsing_size": "is not a number of a usable size",
    "float_parsing": "is not a number",
    "float_type": "is not a number",
    "finite_number": "is not a finite number",
    "bool_parsing": "is not true or false",
    "bool_type": "is not true or false",
    "string_unicode": "is not text",
    "tuple_type": "is not a list",
    "dict_type": "is not a group of names and values",
}


def explain(error: ValidationError) -> Iterator[tuple[Path, str, str, str]]:
    """(path, value, message, hint) of every error."""
    for detail in error.errors(include_url=False):
        path = detail["loc"]
        value = "" if detail["type"] in {"missing", "extra_forbidden"} else value_text(path, detail["input"])
        if detail["type"] == "value_error" and isinstance(detail["input"], dict):
            value = ""  # a check between the options of a group: the sentence names them
        yield path, value, _message(detail), _hint(path, detail)


def _message(detail: ErrorDetails) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if detail["input"] is None and kind != "missing":
        return "has no value"
    if isinstance(detail["input"], float) and math.isnan(detail["input"]):
        return "is not a number"
    if kind in _PLAIN:
        return _PLAIN[kind]
    match kind:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "unknown option"
        case "string_type":
            return "is not text"
        case "model_type":
            return "is not a group of options"
        case "greater_than_equal":
            return f"is less than {_number(context['ge'])}"
        case "greater_than":
            return f"is not more than {_number(context['gt'])}"
        case "less_than_equal":
            return f"is more than {_number(context['le'])}"
        case "less_than":
            return f"is not less than {_number(context['lt'])}"
        case "literal_error":
            return f"is not one of {context['expected']}"
        case "string_pattern_mismatch":
            return f"does not match {context['pattern']}"
        case "too_short":
            return f"has {context['actual_length']} items; at least {context['min_length']} are needed"
        case "value_error":
            return _without_value(str(context["error"]), repr(detail["input"]))
    return f"is refused: {detail['msg'][:1].lower()}{detail['msg'][1:]}"


def _number(bound: float) -> str:
    return str(int(bound)) if float(bound).is_integer() else str(bound)


def _without_value(sentence: str, value: str) -> str:
    """The models' own sentences mostly begin with the value, which stands before the message anyway."""
    return sentence.removeprefix(value).strip() if sentence.startswith(f"{value} ") else f"is refused: {sentence}"


def _hint(path: Path, detail: ErrorDetails) -> str:
    kind = detail["type"]
    if kind == "extra_forbidden":
        return suggest(path)
    if kind == "model_type":
        model = model_at(path)
        return f"its options are {', '.join(model.model_fields)}" if model else ""
    if kind == "tuple_type" and isinstance(detail["input"], str):
        return f"write a list: [{detail['input']}]" if "key" not in str(path[-1]) else "write a list"
    if kind == "literal_error" and isinstance(detail["input"], str):
        return _nearest(detail["input"], str(detail.get("ctx", {}).get("expected", "")))
    if kind == "string_type" and isinstance(detail["input"], int | float):
        return f"put it in quotes: {str(detail['input'])!r}"
    field = field_at(path)
    return _first_sentence(field.description or "") if field else ""


def _nearest(given: str, expected: str) -> str:
    known = [word for word in expected.replace(" or ", ",").replace("'", "").replace(" ", "").split(",") if word]
    close = get_close_matches(given.lower(), known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else ""


def _first_sentence(text: str) -> str:
    return text.replace("``", "").strip().removesuffix(".")
