"""The manifest: JSON lines, one item a row, paths relative to the manifest's folder."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import UserError, near
from .cache import replacing
from .groups import SHARES, assign

_REQUIRED = ("id", "split", "group", "caption", "modalities")
_KNOWN = (*_REQUIRED, "label", "meta")
_KINDS = ("path", "texts", "vector")
_LARGEST = 3.4028234663852886e38  # of float32, in which vectors are trained on
_CONSTANT = re.compile(r'"(?:\\.|[^"\\])*"|(NaN|-?Infinity)')  # strings first, so that a "NaN" inside one is passed over


@dataclass(frozen=True)
class Item:
    """One row: what the modalities hold, and what must be known to split and to score it.

    ``group`` never straddles a split; items with equal ``caption`` count as each other's hits; ``label`` is a category for
    plots. A modality is None where it is missing, else it has one of ``path``, ``texts`` (list of str) or ``vector`` (list of
    float) and may carry more keys, such as ``"synthetic": true``. A picture that stands for a video may name its ``frames``, a folder or
    a list of paths in the order of time. Attributes are a ``vector``; a class is ``texts`` with its name,
    or a ``vector``: its number from 0, or the mean of its items' attributes.
    """

    id: str
    split: str
    group: str
    caption: str
    modalities: dict[str, dict[str, Any] | None]
    label: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """A read manifest. ``sha256`` is that of the file's bytes, or of what it would hold for one made by ``resplit``."""

    items: list[Item]
    path: Path
    sha256: str

    @property
    def root(self) -> Path:
        return self.path.parent

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of all modalities, in the order in which they first appear."""
        return tuple(dict.fromkeys(name for item in self.items for name in item.modalities))

    @classmethod
    def read(cls, path: str | Path) -> Manifest:
        """Reads and checks a manifest.

        Raises UserError that names the file, the line, the column (in characters) of the offending value and its field: bad JSON,
        a missing or unknown field, a wrong type, a duplicate id, vectors of unequal length, no items. Whether the files it names
        exist is not looked at here: `transphere data audit` does.
        """
        path = Path(path).absolute()
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise UserError(f"manifest {path}: cannot be read: {error.strerror}") from error
        items, line_of, length_of = [], {}, {}
        # only \n ends a line (and \r\n, since JSON ignores \r): str.splitlines would also cut at U+2028 inside a caption
        for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
            if not line.strip():
                continue
            where = f"manifest {path}, line {number}"
            try:
                item = _parse(line, where)
                if item.id in line_of:
                    raise _Bad(f"id {item.id!r} is already used in line {line_of[item.id]}", "id")
                line_of[item.id] = number
                for name, entry in item.modalities.items():
                    if entry and "vector" in entry:
                        found = len(entry["vector"])
                        length, first = length_of.setdefault(name, (found, number))
                        if length != found:
                            message = f"'vector' of modality {name!r} has {found} numbers, in line {first} {length}"
                            raise _Bad(message, "modalities", name, "vector")
            except _Bad as error:
                raise UserError(f"{where}{_column(line.decode(), error.keys)}: {error}") from error
            items.append(item)
        if not items:
            raise UserError(f"manifest {path}: expected one item or more, got an empty file")
        return cls(items, path, hashlib.sha256(raw).hexdigest())

    @classmethod
    def write(cls, path: str | Path, items: Sequence[Item]) -> Manifest:
        """Writes ``items`` in one atomic step and returns the manifest as read back, hence checked."""
        path = Path(path).absolute()
        with replacing(path) as temporary:
            temporary.write_bytes(dump(items))
            checked = cls.read(temporary)
        return replace(checked, path=path)

    def resplit(self, seed: int, by: str = "group") -> Manifest:
        """The same items with splits assigned anew: 70 % train, 10 % val, 20 % test of the groups, or of the items for by="item".

        Splitting by item leaks: a caption, a picture or a recording may be on both sides. It is there to show how much that is worth.
        """
        splits = assign([getattr(item, {"group": "group", "item": "id"}[by]) for item in self.items], seed)
        items = [replace(item, split=split) for item, split in zip(self.items, splits, strict=True)]
        return Manifest(items, self.path, hashlib.sha256(dump(items)).hexdigest())

    def split(self, name: str) -> list[Item]:
        """The items of split "train", "val" or "test"."""
        if name not in SHARES:
            raise UserError(f"split: expected one of {', '.join(SHARES)}, got {name!r}")
        return [item for item in self.items if item.split == name]

    def counts(self) -> str:
        """One line for people: items, groups and the sizes of the splits."""
        sizes = Counter(item.split for item in self.items)
        splits = ", ".join(f"{name} {sizes[name]}" for name in SHARES)
        return f"{len(self.items)} items, {len({item.group for item in self.items})} groups ({splits})"


_FIELDS = [entry.name for entry in fields(Item)]


def dump(items: Sequence[Item]) -> bytes:
    """The bytes of a manifest of these items."""
    rows = []
    for item in items:
        row = {name: getattr(item, name) for name in _FIELDS}  # asdict would copy every number of every vector
        if not row["meta"]:
            del row["meta"]
        rows.append(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    return "".join(rows).encode()


class _Bad(Exception):
    """What is wrong with a row, and the keys that lead to the value; no keys where there is no value to point at."""

    def __init__(self, message: str, *keys: str | int) -> None:
        super().__init__(message)
        self.keys = keys


def _parse(line: bytes, where: str) -> Item:
    try:
        row = json.loads(line.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: expected UTF-8, got byte 0x{line[error.start]:02x} at column {error.start + 1}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{where}, column {error.colno}: not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        constant = next((m for m in _CONSTANT.finditer(line.decode()) if m[1] and m[1] in str(error)), None)
        column = f", column {constant.start() + 1}" if constant else ""
        raise UserError(f"{where}{column}: not JSON that can be used: {error}") from error
    if not isinstance(row, dict):
        raise _Bad(f"expected a JSON object, got {type(row).__name__}")
    unknown = [key for key in row if key not in _KNOWN]
    missing = [key for key in _REQUIRED if key not in row]
    if unknown:
        raise _Bad(f"unknown field {unknown[0]!r}; {near(unknown[0], _KNOWN)}", unknown[0])
    if missing:
        raise _Bad(f"field {missing[0]!r} is missing")
    for name in ("id", "split", "group", "caption", "label"):
        _text(row.get(name, ""), f"field {name!r}", name, empty=name in ("caption", "label"))
    if row["split"] not in SHARES:
        raise _Bad(f"field 'split': expected one of {', '.join(SHARES)}, got {row['split']!r}", "split")
    if not isinstance(row.get("meta", {}), dict):
        raise _Bad(f"field 'meta': expected an object, got {type(row['meta']).__name__}", "meta")
    if not isinstance(row["modalities"], dict) or not any(row["modalities"].values()):
        found = _short(row["modalities"])
        raise _Bad(f"field 'modalities': expected an object with one modality or more, got {found}", "modalities")
    for name, entry in row["modalities"].items():
        _check_entry(entry, f"modality {name!r}", "modalities", name)
    return Item(**row)


def _check_entry(entry: Any, what: str, *keys: str) -> None:
    if entry is None:
        return
    if not isinstance(entry, dict) or sum(kind in entry for kind in _KINDS) != 1:
        raise _Bad(f"{what}: expected null or an object with one of {', '.join(_KINDS)}, got {_short(entry)}", *keys)
    if "path" in entry:
        _check_path(entry["path"], f"{what}: 'path'", *keys, "path")
        if "frames" in entry:
            _check_frames(entry["frames"], f"{what}: 'frames'", *keys, "frames")
    elif "texts" in entry:
        if not isinstance(entry["texts"], list) or not entry["texts"]:
            raise _Bad(f"{what}: 'texts': expected a list of one text or more, got {_short(entry['texts'])}", *keys, "texts")
        for number, text in enumerate(entry["texts"]):
            _text(text, f"{what}: 'texts'", *keys, "texts", number)
    else:
        vector = entry["vector"]
        numbers = vector if isinstance(vector, list) else []
        bad = [at for at, v in enumerate(numbers) if type(v) not in (int, float) or not abs(v) <= _LARGEST]
        if not numbers or bad:
            got = f"{_short(vector[bad[0]])} among them" if bad else _short(vector)
            raise _Bad(f"{what}: 'vector': expected a list of finite numbers (float32), got {got}", *keys, "vector", *bad[:1])


def _check_frames(value: Any, what: str, *keys: str | int) -> None:
    if not isinstance(value, (str, list)) or not value:
        raise _Bad(f"{what}: expected a folder or a list of one path or more, got {_short(value)}", *keys)
    for number, name in enumerate(value) if isinstance(value, list) else ():
        _check_path(name, what, *keys, number)
    if isinstance(value, str):
        _check_path(value, what, *keys)


def _check_path(value: Any, what: str, *keys: str | int) -> None:
    _text(value, what, *keys)
    if PurePosixPath(value).is_absolute():
        raise _Bad(f"{what}: expected one relative to the manifest's folder, got {value!r}", *keys)


def _text(value: Any, what: str, *keys: str | int, empty: bool = False) -> None:
    if not isinstance(value, str) or not (empty or value.strip()):
        raise _Bad(f"{what}: expected a text that is not empty, got {_short(value)}", *keys)
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise _Bad(f"{what}: holds a character that no file name or tokenizer can take (NUL or half of a surrogate pair)", *keys)


def _column(line: str, keys: tuple[str | int, ...]) -> str:
    """", column N" of the value that the keys lead to in a line of valid JSON; "" without keys."""
    if not keys:
        return ""
    value, gap = json.JSONDecoder().raw_decode, re.compile(r"[\s,:]*")  # what stands between values
    skip = lambda at: gap.match(line, at).end()  # noqa: E731
    at = skip(0)
    for key in keys:
        inside, at, number = line[at], skip(at + 1), 0
        while True:
            name = number
            if inside == "{":
                name, at = value(line, at)
                at = skip(at)
            if name == key:
                break
            at, number = skip(value(line, at)[1]), number + 1
    return f", column {at + 1}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"field {twice!r} is given twice")
    return row


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
