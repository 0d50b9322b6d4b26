"""Texts: captions from templates, their augmentation, and tokens."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..data.manifest import Item
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
        self.fields = [field for _, field, _, _ in string.Formatter().parse(template) if field] if template else []

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
            kept = {f: "" if "drop" in augment and generator.random() < DROP else str(known.get(f, "")) for f in self.fields}
            text = self.template.format_map(kept)
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


def _known(item: Item) -> dict:
    return {"caption": item.caption, "label": item.label, **item.meta}


class Tokens:
    """Text to at most `longest` token numbers, the special ones included."""

    def __init__(self, encode: Callable[[str], list[int]], pad: int) -> None:
        self.encode, self.pad = encode, pad

    @classmethod
    def pretrained(cls, name: str, longest: int) -> Tokens:
        """Those of a published tokenizer, by name or local folder."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError, TypeError) as error:  # the last where transformers 4 finds no vocabulary
            raise UserError(f"pretrained: {name}: no tokenizer that can be read: {str(error).splitlines()[0]}") from None
        if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers 5 makes an empty one where the vocabulary is missing
            raise UserError(f"pretrained: {name}: its tokenizer knows no words; is vocab.txt or tokenizer.json missing?")
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        return cls(partial(_tokens, tokenizer, longest), pad)

    @classmethod
    def of_bytes(cls, first: int, last: int, pad: int, offset: int, longest: int) -> Tokens:
        """UTF-8 bytes as numbers from `offset`: for random weights, which know no vocabulary."""
        return cls(partial(_bytes, first, last, offset, longest), pad)


# Not lambdas: reading processes that are spawned, not forked, get them pickled.
def _tokens(tokenizer: Callable, longest: int, text: str) -> list[int]:
    return tokenizer(text, truncation=True, max_length=longest)["input_ids"]


def _bytes(first: int, last: int, offset: int, longest: int, text: str) -> list[int]:
    return [first, *(offset + byte for byte in text.encode()[: longest - 2]), last]
