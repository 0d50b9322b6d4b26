"""What the values of a configuration have to be, whatever recipe they come from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .errors import UserError, near

if TYPE_CHECKING:
    from .config import Config, Encoder

OBJECTIVES = (
    "contrastive", "sliced", "harnessed", "mc-infonce", "pcmc", "pcmr", "triplet", "entropic-contrastive", "pcme", "mpc",
    "learning-to-match", "mmcosine", "softmax", "gated", "film",
)  # fmt: skip
CLASSIFY = ("mmcosine", "softmax", "gated", "film")
OPTIMISERS, SCHEDULES, PRECISIONS = ("adamw", "adam", "sgd"), ("constant", "cosine", "step"), ("fp32", "bf16")
HEADS = ("vmf", "natural", "linear", "residual", "none")
SAMPLERS = ("released",)


def check(config: Config) -> None:
    """A UserError for the first key that breaks its rule."""
    data, model, objective, optim, run = config.data, config.model, config.objective, config.optim, config.run
    low, high = model.kappa
    rules = [
        (len(set(data.modalities)) == len(data.modalities), "data.modalities", "each modality once", data.modalities),
        (len(data.modalities) != 1, "data.modalities", "none (all) or at least two", data.modalities),
        (data.split_by in ("group", "item"), "data.split_by", "group or item", data.split_by),
        (data.split_by == "group" or data.split_seed is not None, "data.split_by", "group without a data.split_seed", data.split_by),
        *((0 <= rate <= 1, f"data.noise.{name}", "0 <= rate <= 1", rate) for name, rate in data.noise.items()),
        *((0 <= rate < 1, f"data.missing.{name}", "0 <= rate < 1", rate) for name, rate in data.missing.items()),
        *(rule for name, encoder in model.encoders.items() for rule in _encoder_rules(f"model.encoders.{name}", encoder)),
        (data.workers is None or 0 <= data.workers <= 256, "data.workers", "0 to 256", data.workers),
        (model.dim >= 2, "model.dim", "at least 2", model.dim),
        (model.head != "none" or objective.name in CLASSIFY, "objective.name", f"one of {CLASSIFY} with model.head = none", objective.name),
        (model.hidden >= 0, "model.hidden", "0 (none) or more", model.hidden),
        (0 <= model.dropout < 1, "model.dropout", "0 <= dropout < 1", model.dropout),
        (0 <= low < high, "model.kappa", "0 <= low < high", list(model.kappa)),
        (objective.sampler in (None, *SAMPLERS), "objective.sampler", f"none (the right law), {', '.join(SAMPLERS)}", objective.sampler),
        (objective.temperature > 0, "objective.temperature", "a number > 0", objective.temperature),
        (objective.n_samples >= 1, "objective.n_samples", "at least 1", objective.n_samples),
        (objective.n_projections >= 1, "objective.n_projections", "at least 1", objective.n_projections),
        (objective.weight >= 0, "objective.weight", "a number >= 0", objective.weight),
        (0 < optim.lr <= 1e6, "optim.lr", "0 < lr <= 1e6", optim.lr),
        (optim.weight_decay >= 0, "optim.weight_decay", "a number >= 0", optim.weight_decay),
        (optim.clip_norm >= 0, "optim.clip_norm", "a number >= 0", optim.clip_norm),
        (optim.batch_size >= 2, "optim.batch_size", "at least 2", optim.batch_size),
        (optim.epochs >= 1, "optim.epochs", "at least 1", optim.epochs),
        (0 <= optim.momentum < 1, "optim.momentum", "0 <= momentum < 1", optim.momentum),
        (optim.warmup >= 0, "optim.warmup", "0 (none) or more", optim.warmup),
        (optim.step_epochs >= 1, "optim.step_epochs", "at least 1", optim.step_epochs),
        (0 < optim.gamma <= 1, "optim.gamma", "0 < gamma <= 1", optim.gamma),
        (1 <= optim.accumulate <= optim.batch_size, "optim.accumulate", "1 to optim.batch_size", optim.accumulate),
        (0 <= optim.ema < 1, "optim.ema", "0 <= ema < 1", optim.ema),
        (run.eval_every >= 1, "run.eval_every", "at least 1", run.eval_every),
        (run.patience >= 0, "run.patience", "0 (never) or more", run.patience),
        (run.eval_samples >= 0, "run.eval_samples", "0 (the mean direction) or more", run.eval_samples),
        (bool(re.fullmatch(r"auto|cpu|cuda(:\d+)?", run.device)), "run.device", "auto, cpu, cuda or cuda:NUMBER", repr(run.device)),
        (run.save_every >= 0, "run.save_every", "0 (at validations only) or more", run.save_every),
        (not run.shard or not optim.ema, "optim.ema", "0 with run.shard: torch cannot copy a model that is spread", optim.ema),
        (not run.shard or not run.compile, "run.compile", "false with run.shard", run.compile),
        (run.timeout >= 1, "run.timeout", "at least 1 second", run.timeout),
    ]
    for holds, key, expected, value in rules:
        if not holds:
            raise UserError(f"{key}: expected {expected}, got {value}")
    for key, value, known in (
        ("objective.name", objective.name, OBJECTIVES),
        ("model.head", model.head, HEADS),
        ("optim.name", optim.name, OPTIMISERS),
        ("optim.schedule", optim.schedule, SCHEDULES),
        ("run.precision", run.precision, PRECISIONS),
    ):
        if value not in known:
            raise UserError(f"{key}: unknown {value!r}; {near(value, known)}")


def _encoder_rules(where: str, encoder: Encoder) -> list[tuple[bool, str, str, object]]:
    return [
        (encoder.size in ("full", "tiny"), f"{where}.size", "full or tiny", encoder.size),
        (not encoder.pretrained or encoder.size == "full", f"{where}.size", "full for published weights", encoder.size),
        (encoder.freeze >= -1, f"{where}.freeze", "-1 (all), 0 (nothing) or a number of layers", encoder.freeze),
        (encoder.lr is None or 0 < encoder.lr <= 1e6, f"{where}.lr", "0 < lr <= 1e6", encoder.lr),
        (encoder.dropout is None or 0 <= encoder.dropout < 1, f"{where}.dropout", "0 <= dropout < 1", encoder.dropout),
        (encoder.seconds is None or 0.1 <= encoder.seconds <= 600, f"{where}.seconds", ".1 to 600", encoder.seconds),
        (encoder.frames is None or 1 <= encoder.frames <= 256, f"{where}.frames", "1 to 256", encoder.frames),
        (encoder.width is None or encoder.width >= 1, f"{where}.width", "at least 1", encoder.width),
        (encoder.classes is None or encoder.classes >= 1, f"{where}.classes", "at least 1", encoder.classes),
    ]
