"""The loop: one model, one objective, one optimiser, over features in memory.

Everything random is keyed by (seed, purpose, epoch), so that a run that was cut and resumed at an epoch's end gives, on a CPU, the same
bits as one that was not.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from transphere import VonMisesFisher

from . import checkpoint
from .batch import Batch, batches
from .config import Config, Optim
from .errors import UserError
from .evaluator import caption_keys, evaluate, mean_mrr
from .model import OBJECTIVE, build_model, build_objective
from .seeding import derive


class NonFiniteError(ArithmeticError):
    """A loss, a part of it, a distribution or a gradient became NaN or infinite; the message says where."""


@dataclass
class _Sums:
    """Means of the loss parts and the range of kappa over an epoch."""

    items: int = 0
    parts: dict[str, float] = field(default_factory=dict)
    kappas: dict[str, list[torch.Tensor]] = field(default_factory=dict)

    def add(self, parts: dict[str, float], kappas: dict[str, torch.Tensor], items: int) -> None:
        self.items += items
        for name, value in parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + value * items
        for name, value in kappas.items():
            self.kappas.setdefault(name, []).append(value)

    def result(self) -> dict[str, object]:
        joined = {name: torch.cat(values) for name, values in self.kappas.items()}
        kappa = {name: [float(k.min()), float(k.mean()), float(k.max())] for name, k in joined.items() if len(k)}
        return {**{name: value / self.items for name, value in self.parts.items()}, "kappa": kappa}


class Trainer:
    """Fits a model to `train`, chooses the epoch by mean MRR on `val`, and keeps its files in `out`.

    Files: metrics.jsonl (a line per epoch), last.pt (to go on from), best.safetensors (the weights of the best epoch so far), done.json
    (written when the run has ended). `digest` marks the checkpoints; one of another configuration is refused.
    """

    def __init__(self, config: Config, train: Batch, val: Batch, out: Path, digest: str, progress: bool = True, row: int = 0) -> None:
        self.config, self.out, self.digest, self.progress, self.row = config, out, digest, progress, row
        self.device = pick_device(config.run.device)
        self.train, self.val = train.matchable().to(self.device), val.to(self.device)
        if len(self.train) < 2:
            raise UserError(f"expected at least two training items with two modalities or more, got {len(self.train)}")
        dims = {name: x.shape[1] for name, x in train.inputs.items()}
        with self._seeded("init"):
            self.model = build_model(config.model, dims).to(self.device)
            self.objective = build_objective(config.objective, config.model.dim).to(self.device)
        for name, branch in self.model.items():
            if self.train.present[name].any():
                branch.encoder.fit(self.train.inputs[name][self.train.present[name]])
        self.parameters = [*self.model.parameters(), *self.objective.parameters()]
        # At weight_decay = 0 this is Adam.
        self.optimizer = torch.optim.AdamW(self.parameters, lr=config.optim.lr, weight_decay=config.optim.weight_decay)
        self.steps_per_epoch = len(list(batches(len(self.train), config.optim.batch_size, 0, 0)))
        self.step, self.epoch, self.seconds = 0, 0, 0.0
        self.best: dict[str, float] = {"epoch": 0, "mrr": -math.inf}
        self.waited = 0  # validations since the best one
        self.history: list[dict] = []

    def fit(self) -> dict:
        """Train from where the trainer stands to the end; returns (and writes to done.json) how it ended."""
        started = time.monotonic() - self.seconds
        total = self.config.optim.epochs
        with self._bar(total) as bar:
            while self.epoch < total and not self._patience_is_over():
                self.epoch += 1
                record = self._epoch(bar)
                judged = self.epoch % self.config.run.eval_every == 0 or self.epoch == total
                improved = judged and self._judge(record)
                self.seconds = time.monotonic() - started
                self.history.append({**record, "seconds": round(self.seconds, 3)})
                if judged:
                    self._save(improved)
        summary = {
            "digest": self.digest,
            "best_epoch": self.best["epoch"],
            "val_mrr": self.best["mrr"],
            "epochs": self.epoch,
            "stopped_by": "patience" if self.epoch < total else "epochs",
            "seconds": round(self.seconds, 2),
        }
        checkpoint.write_json(self.out / "done.json", summary)
        return summary

    def resume(self) -> bool:
        """Take up last.pt when there is one; False when there is none. UserError for one that is broken or not of this configuration."""
        path = self.out / "last.pt"
        if not path.exists():
            return False
        state = checkpoint.load_state(path)
        if state.get("digest") != self.digest:
            raise UserError(f"{path}: belongs to another configuration; give another --out")
        self.model.load_state_dict(state["model"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.epoch, self.seconds, self.waited = state["step"], state["epoch"], state["seconds"], state["waited"]
        self.best, self.history = state["best"], json.loads(state["history"])
        return True

    def _epoch(self, bar: tqdm) -> dict:
        self.model.train()
        sums = _Sums()
        seed, size = self.config.run.seed, self.config.optim.batch_size
        with self._seeded("noise", self.epoch):
            for index in batches(len(self.train), size, seed, self.epoch):
                batch = self.train.select(index)
                parts, kappas = self._step(batch)
                sums.add(parts, kappas, len(batch))
                bar.update()
                bar.set_description_str(self._status(sums.result()), refresh=False)
        if not all(torch.isfinite(p).all() for p in self.parameters):
            raise NonFiniteError(f"the weights are not finite after step {self.step} (epoch {self.epoch}); try a smaller optim.lr")
        return {"epoch": self.epoch, "step": self.step, "lr": self.optimizer.param_groups[0]["lr"], **sums.result()}

    def _step(self, batch: Batch) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config.optim, self.step, self.steps_per_epoch * self.config.optim.epochs)
        self.step += 1
        embeddings = self.model(batch.inputs)
        for name, law in embeddings.items():
            self._check_law(name, law, batch)
        groups = () if self.config.objective.duplicates is None else (caption_keys(batch).to(self.device),)
        loss, parts = self.objective(embeddings, batch.present, *groups)
        values = {"loss": float(loss.detach()), **{name: float(value) for name, value in parts.items()}}
        wrong = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]
        if wrong:
            self._stop(", ".join(wrong), batch)
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.optim.clip_norm or math.inf)
        if not torch.isfinite(norm):
            self._stop(f"the gradient's norm = {float(norm)}", batch)
        self.optimizer.step()
        if hasattr(self.objective, "project_"):  # back to where its parameters may be
            self.objective.project_()
        return values, {name: law.concentration.detach()[batch.present[name]] for name, law in embeddings.items()}

    def _check_law(self, name: str, law: VonMisesFisher, batch: Batch) -> None:
        finite = torch.isfinite(law.loc).all(-1) & torch.isfinite(law.concentration)  # (B,)
        if not finite.all():
            self._stop(f"the distribution of {name} is not finite", batch.select((~finite).nonzero().flatten().tolist()))

    def _stop(self, what: str, batch: Batch) -> None:
        path = self.out / "nonfinite.json"
        checkpoint.write_json(path, {"step": self.step, "epoch": self.epoch, "what": what, "ids": batch.ids})
        shown = ", ".join(batch.ids[:3]) + (f", ... ({len(batch)} items, all in {path})" if len(batch) > 3 else "")
        raise NonFiniteError(f"stopped at step {self.step} (epoch {self.epoch}): {what}; batch: {shown}")

    def _judge(self, record: dict) -> bool:
        """Validate, put the result into the epoch's record, and say whether it is the best so far."""
        M = getattr(self.objective, "M", None)
        results = evaluate(self.model, self.val, self.config.run.eval_samples, derive(self.config.run.seed, "val"), metric=M)
        if not results:
            raise UserError("no item of the val split can ask another: each has one modality only")
        record["val_mrr"] = mean_mrr(results)
        record["val"] = {direction: metrics["MRR"] for direction, metrics in results.items()}
        improved = record["val_mrr"] > self.best["mrr"]
        if improved:
            self.best = {"epoch": self.epoch, "mrr": record["val_mrr"]}
        self.waited = 0 if improved else self.waited + 1
        return improved

    def _patience_is_over(self) -> bool:
        return 0 < self.config.run.patience <= self.waited

    def _save(self, improved: bool) -> None:
        if improved:
            facts = {"digest": self.digest, "epoch": self.epoch, "val_mrr": self.best["mrr"]}
            learned = {OBJECTIVE + name: x for name, x in self.objective.state_dict().items()}  # M of m-LTM scores pairs too
            checkpoint.save_weights(self.out / "best.safetensors", {**self.model.state_dict(), **learned}, facts)
        lines = "".join(json.dumps(record) + "\n" for record in self.history)
        checkpoint.write(self.out / "metrics.jsonl", lines)
        # Last, since it is what a resumed run believes: whatever it says has been written.
        state = {
            "digest": self.digest,
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **{"step": self.step, "epoch": self.epoch, "seconds": self.seconds, "waited": self.waited, "best": self.best},
            "history": json.dumps(self.history),
        }
        checkpoint.save_state(self.out / "last.pt", state)

    @contextlib.contextmanager
    def _seeded(self, *purpose: object) -> Iterator[None]:
        """Draws inside the block come from (seed, purpose); the caller's generators are as before when it ends."""
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(derive(self.config.run.seed, *purpose))
            yield

    def _bar(self, total: int) -> tqdm:
        # Where nobody watches (a log file), a line every ten seconds is enough.
        watched = sys.stderr.isatty()
        return tqdm(
            total=total * self.steps_per_epoch,
            initial=self.epoch * self.steps_per_epoch,
            desc=self.out.name,
            unit="step",
            disable=not self.progress,
            position=self.row,
            mininterval=0.1 if watched else 10.0,
            dynamic_ncols=True,
            leave=not watched,
            bar_format="{percentage:3.0f}%|{bar:10}| {desc} [{elapsed}<{remaining}]",
        )

    def _status(self, sums: dict) -> str:
        """epoch 12/60 loss 4.310 contrastive 4.200 sliced 0.110 kappa 96 [70, 121] val MRR 0.220 at 9"""
        parts = " ".join(f"{name} {value:.3f}" for name, value in sums.items() if name != "kappa")
        low, mean, high = (list(column) for column in zip(*sums["kappa"].values(), strict=True))
        text = f"epoch {self.epoch}/{self.config.optim.epochs} {parts} kappa {sum(mean) / len(mean):.0f} [{min(low):.0f}, {max(high):.0f}]"
        return text + (f" val MRR {self.best['mrr']:.3f} at {self.best['epoch']:.0f}" if self.best["epoch"] else "")


def learning_rate(config: Optim, step: int, total: int) -> float:
    """The rate of a step (from 0) out of `total`: constant, or half a cosine from lr to 0."""
    if config.schedule == "constant":
        return config.lr
    return config.lr * 0.5 * (1 + math.cos(math.pi * step / total))


def pick_device(name: str) -> torch.device:
    """The device that run.device names; UserError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"run.device: cannot use {name!r}: {str(error).splitlines()[0]}") from None
    return device
