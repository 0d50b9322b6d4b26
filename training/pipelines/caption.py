"""Texts: captions from templates, their augmentation, and tokens."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..data.manifest import Item
from ..encoders.hub import absent, offline
from ..errors import UserError, near
from .eda import eda, synonyms

DROP = 0.05  # of the metadata, or of the words where there is no template (ISMIR 2024, section 4.1.2)


class Caption:
    """{"input_ids", "attention_mask"}, (B, T) each: one of the item's texts, at random in training and the first else; or a template.

    `template` names fields of the item's meta (or "caption", or "label") in braces: keyword-to-caption, as in '"{title}" is a song by
    "{artist}"'. Augmented: "drop" leaves out every twentieth field, or word; "eda" changes ten per cent of the words.
    """

    kind = "texts"
    known: Sequence[str] = ("drop", "eda")

    def __init__(self, tokens: Tokens, template: str | None, augment: frozenset[str]) -> None:
        self.tokens, self.template, self.augment = tokens, template, augment
        self.parts = _parts(template) if template else []
        self.fields = [field for _, field in self.parts if field]

    def check(self, items: Sequence[Item]) -> None:
        """A field that no item has is a mistake in the template; one that some lack is left empty there."""
        if "eda" in self.augment:
            synonyms()  # once, before there are workers
        for field in self.fields:
            if not any(field in _known(item) for item in items):
                known = {name for item in items for name in _known(item)}
                raise UserError(f"template: no item has {field!r} in its meta; {near(field, known)}")

    def read(self, content: list[str], item: Item, generator: np.random.Generator | None) -> Tensor:
        return self.of_text(self.text(content, item, generator))

    def text(self, texts: list[str], item: Item, generator: np.random.Generator | None) -> str:
        """The text of an item before it becomes tokens."""
        augment = self.augment if generator is not None else frozenset()
        if self.template:
            known = _known(item)
            kept = {f: "" if "drop" in augment and generator.random() < DROP else _shown(known.get(f)) for f in self.fields}
            text = "".join(before + kept.get(field, "") for before, field in self.parts)
        else:
            text = texts[0 if generator is None else int(generator.integers(len(texts)))]
            if "drop" in augment:
                words = text.split()
                text = " ".join(word for word in words if generator.random() >= DROP) or text
        return eda(text, generator) if "eda" in augment else text

    def of_text(self, text: str) -> Tensor:
        return torch.tensor(self.tokens.encode(text))

    def blank(self) -> Tensor:
        return self.of_text("")

    def collate(self, samples: Sequence[Tensor]) -> dict[str, Tensor]:
        lengths = torch.tensor([len(sample) for sample in samples])
        ids = torch.nn.utils.rnn.pad_sequence(list(samples), batch_first=True, padding_value=self.tokens.pad)
        return {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long()}


def _parts(template: str) -> list[tuple[str, str | None]]:
    """A template as pairs of a text and the field after it, None after the last; UserError for braces that hold no name."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"template: expected names of fields in braces, got {template!r}: {error}") from None
    for _, field, form, conversion in parts:
        if field is not None and (not field or form or conversion):
            raise UserError(f"template: expected names of fields in braces, got {template!r}: a field is its name alone")
    return [(before, field) for before, field, _, _ in parts]


def _shown(value: object) -> str:
    """A value of an item's meta in a caption: nothing where there is none, keywords one after another."""
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return "" if value is None else str(value)


def _known(item: Item) -> dict:
    return {"caption": item.caption, "label": item.label, **item.meta}


class Tokens(Protocol):
    """Text to token numbers, the special ones included."""

    pad: int

    def encode(self, text: str) -> list[int]: ...


class PublishedTokens:
    """Those of a published tokenizer, by name or local folder, at most `longest`."""

    def __init__(self, name: str, longest: int) -> None:
        from transformers import AutoTokenizer

        local = offline(name)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=local)
        except (OSError, ValueError, TypeError) as error:  # the last where transformers 4 finds no vocabulary
            if local and isinstance(error, OSError):
                raise UserError(absent(name)) from None
            raise UserError(f"pretrained: {name}: no tokenizer that can be read: {str(error).splitlines()[0]}") from None
        if len(self.tokenizer) <= len(self.tokenizer.all_special_ids):  # transformers 5 makes an empty one where the vocabulary is missing
            raise UserError(f"pretrained: {name}: its tokenizer knows no words; is vocab.txt or tokenizer.json missing?")
        self.pad = self.tokenizer.eos_token_id if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id
        self.longest = longest

    def encode(self, text: str) -> list[int]:
        return self.tokenizer(text, truncation=True, max_length=self.longest)["input_ids"]


@dataclass(frozen=True)
class ByteTokens:
    """UTF-8 bytes as numbers from `offset`, at most `longest`: for random weights, which know no vocabulary."""

    first: int
    last: int
    pad: int
    offset: int
    longest: int

    def encode(self, text: str) -> list[int]:
        return [self.first, *(self.offset + byte for byte in text.encode()[: self.longest - 2]), self.last]
