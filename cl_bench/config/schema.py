"""Conversion between nested plain values and validated dataclasses, with one line per mistake."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, get_origin, get_type_hints

import annotated_types as at
import pydantic

from cl_bench.errors import UserError, did_you_mean

_T = TypeVar("_T")

STRICT = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
Positive = Annotated[int, at.Gt(0)]
NonNegative = Annotated[int, at.Ge(0)]
PositiveFloat = Annotated[float, at.Gt(0)]
NonNegativeFloat = Annotated[float, at.Ge(0)]
Fraction = Annotated[float, at.Ge(0), at.Lt(1)]

MISSING = "???"
"""OmegaConf's marker of a mandatory value that is not set."""


class ConfigError(UserError):
    """An invalid configuration; one line per mistake."""


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain dict of a config dataclass, with tuples as lists, as in YAML and JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return plain


def build(cls: type[_T], data: Mapping[str, Any]) -> _T:
    """Build a `cls` from nested plain values. Raises ConfigError with one line per mistake."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"the configuration is {type(data).__name__}, not a group of keys")
    try:
        return pydantic.TypeAdapter(cls).validate_python(dict(data))
    except pydantic.ValidationError as error:
        raise ConfigError("\n".join(_explain(cls, dict(e)) for e in error.errors())) from None


def _explain(cls: type[Any], error: dict[str, Any]) -> str:
    """One line for a pydantic error: name, value, what is allowed."""
    name = ".".join(str(part) for part in error["loc"])
    message = str(error["msg"])
    if error["type"] == "value_error":  # raised by a __post_init__ with a complete message
        return message.removeprefix("Value error, ")
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{name}: unknown key; {did_you_mean(name, field_names(cls))}"
    if error["type"] == "missing" or error["input"] == MISSING:
        return f"{name}: has no value; give it one"
    if error["type"] in ("dataclass_type", "dataclass_exact_type"):
        return f"{name} = {error['input']!r}: must be a group of keys"
    message = re.sub(", unable to parse string as an? [a-z]+", "", message)
    return f"{name} = {error['input']!r}: {message.replace('Input should be', 'must be')}"


def field_names(cls: Any) -> list[str]:
    """Every dotted key of a dataclass."""
    return [name for name, _ in _fields(cls)]


def _fields(cls: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and type of every value of a dataclass."""
    for name, hint in get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            yield from _fields(hint, f"{prefix}{name}.")
        else:
            yield prefix + name, hint


def free_form_keys(cls: Any) -> list[str]:
    """Dotted keys of a dataclass whose values are dictionaries with keys of the user's choice."""
    return [name for name, hint in _fields(cls) if get_origin(hint) is dict]


def schema(cls: Any) -> dict[str, Any]:
    """Every key of a dataclass with its default, or MISSING if a preset must set it."""
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            values[field.name] = schema(hints[field.name])
        elif field.default_factory is not dataclasses.MISSING:
            values[field.name] = field.default_factory()
        elif field.default is not dataclasses.MISSING:
            values[field.name] = list(field.default) if isinstance(field.default, tuple) else field.default
        else:
            values[field.name] = MISSING
    return values
