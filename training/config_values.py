"""Values of a configuration between TOML's types, the dataclasses' hints and what is typed after --set."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import tomllib
import types
import typing
from collections.abc import Iterable

from .errors import UserError, near


def toml_of(value: object) -> str:
    """A value as TOML writes it: what JSON writes, but for tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml_of(item)}" for key, item in value.items() if item is not None) + "}"
    # DEL is the one control character that JSON leaves as it is and TOML forbids.
    return json.dumps(value).replace("\x7f", "\\u007f")


def parse(raw: str, hint: object) -> object:
    """What is typed after --set, where strings need no quotes."""
    if hint is str or str in typing.get_args(hint) and typing.get_origin(hint) in (types.UnionType, typing.Union):
        return raw.strip("\"'")
    if float in (hint, *typing.get_args(hint)):  # TOML wants a digit before the point, people do not
        with contextlib.suppress(ValueError):
            return float(raw)
    try:
        parsed = tomllib.loads(f"value = {raw}")
    except tomllib.TOMLDecodeError:
        return raw
    return parsed["value"] if len(parsed) == 1 else raw


def convert(value: object, hint: object, where: str) -> object:
    """`value` as the type `hint` says, or a UserError; a number is never a string and a truth value never a number."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else convert(value, next(a for a in arguments if a is not type(None)), where)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and isinstance(value, str):
        return value
    if origin is list and isinstance(value, (list, tuple)):
        return [convert(item, arguments[0], where) for item in value]
    if origin is tuple and isinstance(value, (list, tuple)) and len(value) == len(arguments):
        return tuple(convert(item, kind, where) for item, kind in zip(value, arguments, strict=True))
    if dataclasses.is_dataclass(hint) and isinstance(value, str):  # its name alone
        return hint(value)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        keys = typing.get_type_hints(hint)
        for key in value:
            check_known(key, keys, f"{where}: unknown key")
        if "name" not in value:
            raise UserError(f"{where}: expected a name, got {value!r}")
        return hint(**{key: convert(item, keys[key], f"{where}.{key}") for key, item in value.items()})
    if origin is dict and isinstance(value, dict):
        return {str(key): convert(item, arguments[1], f"{where}.{key}") for key, item in value.items()}
    names = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a string"}
    names |= {list: "a list", dict: "a table", tuple: "a pair of numbers"}
    raise UserError(f"{where}: expected {names.get(origin or hint, 'a name or a table with a name')}, got {value!r}")


def check_known(name: str, known: Iterable[str], complaint: str, prefix: str = "") -> None:
    """A UserError that names the nearest of the known names."""
    if name not in known:
        raise UserError(f"{complaint} {prefix + name!r}; {near(prefix + name, [prefix + k for k in known])}")
