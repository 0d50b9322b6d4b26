"""The loop: one model, one objective, one optimiser.

Everything random is a function of (seed, purpose, step, item), so that a run that was cut and resumed, after whatever step, gives on a CPU
the same bits as one that was not, and k processes the same losses as one.
"""

from __future__ import annotations

import functools
import inspect
import json
import math
import signal
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import checkpoint, sharding
from .batch import Batch, batches
from .classification import CLASSIFIERS, class_names, evaluate_classes, label_numbers
from .config import Config
from .distributed import World, pick_device, synchronised
from .errors import Stopped, UserError
from .evaluator import can_ask, caption_keys, evaluate, mean_mrr
from .model import OBJECTIVE, build_model, build_objective, parameter_groups
from .optim import build_average, build_optimizer, build_schedule
from .progress import Board, Sums, progress_bar, status
from .seeding import derive
from .signals import Signals, noted
from .step import Embedded, Step


class NonFiniteError(ArithmeticError):
    """A loss, a part of it, a distribution or a gradient became NaN or infinite; the message says where."""


class Trainer:
    """Fits a model to `train`, chooses the epoch by mean MRR on `val`, and keeps its files in `out`.

    Files: metrics.jsonl (a line per epoch), last.pt (to go on from) and the one before it, best.safetensors (the weights of the best epoch
    so far, or their average), done.json (written when the run has ended). `digest` marks the checkpoints; one of another configuration
    is refused. In a `world` of several processes all hold the same state, and the first writes.
    """

    def __init__(
        self,
        config: Config,
        train: Batch,
        val: Batch,
        out: Path,
        digest: str,
        progress: bool = True,
        row: int = 0,
        world: World | None = None,
    ) -> None:
        self.config, self.out, self.digest, self.row = config, out, digest, row
        self.world = world or World(device=pick_device(config.run.device))
        self.device, self.first = self.world.device, self.world.rank == 0
        self.progress = progress and self.first
        self.train, self.val = train.matchable().to(self.device), val.to(self.device)
        self.classes = class_names(self.train) if config.objective.name in CLASSIFIERS else []
        self.steps_per_epoch = self._check_items()
        self.groups = None if config.objective.duplicates is None else caption_keys(self.train).to(self.device)  # (N,)
        self.labels = label_numbers(self.train, self.classes).to(self.device)  # (N,), of use where there are classes
        self._build(config)
        self.step, self.epoch, self.seconds = 0, 0, 0.0
        self.batch = 0  # batches of the epoch that are done
        self.sums, self.signals = Sums(), Signals()
        self.best: dict[str, float] = {"epoch": 0, "mrr": -math.inf}
        self.waited = 0  # validations since the best one
        self.history: list[dict] = []

    def _check_items(self) -> int:
        """How many batches an epoch has. UserError for items that cannot be trained on or validated: before the work, not after it."""
        if len(self.train) < 2:
            raise UserError(f"expected at least two training items with two modalities or more, got {len(self.train)}")
        if not self.classes and not can_ask(self.val):
            raise UserError("no item of the val split can ask another: each has one modality only")
        if self.classes and (label_numbers(self.val, self.classes) < 0).all():
            raise UserError("no item of the val split has a label that a training item has")
        sizes = [len(index) for index in batches(len(self.train), self.config.optim.batch_size, 0, 0)]
        if min(sizes) < self.world.size:
            raise UserError(f"optim.batch_size: a batch of {min(sizes)} items cannot be shared by {self.world.size} processes")
        return len(sizes)

    def _build(self, config: Config) -> None:
        """The model, the objective, and what moves them."""
        dims = self.train.dims
        with self._generators_kept():
            torch.manual_seed(derive(config.run.seed, "init"))
            self.model = build_model(config.model, dims).to(self.device)
            self.objective = build_objective(config.objective, config.model.dim, dims, self.classes).to(self.device)
        if config.run.sync_batchnorm:
            self.model = synchronised(self.model, self.world)
        self.sharded = config.run.shard and self.world.size > 1
        for branch in self.model.values():
            branch.together = config.run.sync_batchnorm or self.sharded
        self.model.fit_features(self.train.inputs, self.train.present)
        if self.sharded:
            sharding.shard(self.model)
        groups = parameter_groups(self.model, self.objective, lr=config.optim.lr)
        self.parameters = [p for group in groups for p in group["params"]]
        self.optimizer = build_optimizer(config.optim, groups)
        self.schedule = build_schedule(config.optim, self.optimizer, self.steps_per_epoch)
        self.learned = nn.ModuleList([self.model, self.objective])
        self.average = build_average(config.optim, self.learned)
        self.takes = inspect.signature(self.objective.forward).parameters

    @functools.cached_property
    def passes(self) -> Step:
        """Made when it is first needed: torch's wrapper takes the parameters as they are then."""
        return Step(self.model, self.config, self.world)

    def fit(self) -> dict:
        """Train from where the trainer stands to the end; returns (and writes to done.json) how it ended.

        Raises NonFiniteError, and Stopped after a signal, when the state has been saved.
        """
        self.started = time.monotonic() - self.seconds
        total = self.config.optim.epochs
        board = Board(self.out, self.step) if self.config.run.tensorboard and self.first else None
        bar = progress_bar(self.out, total=total * self.steps_per_epoch, done=self.step, shown=self.progress, row=self.row)
        with noted() as self.signals, self._generators_kept(), bar:
            while self.batch or self.epoch < total and not self._patience_is_over():
                if not self.batch:
                    self.epoch, self.sums = self.epoch + 1, Sums()
                record = self._epoch(bar)
                judged = self.epoch % self.config.run.eval_every == 0 or self.epoch == total
                improved = judged and self._judge(record)
                self.batch = 0
                self.seconds = time.monotonic() - self.started
                self.history.append({**record, "seconds": round(self.seconds, 3)})
                if board:
                    board.add(self.history[-1])
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
        if self.first:
            checkpoint.write_json(self.out / "done.json", summary)
        return summary

    def resume(self) -> bool:
        """Take up last.pt, or the one before it where that cannot be read; False when there is none.

        UserError when none can be read, or it is not of this configuration.
        """
        path = self.out / "last.pt"
        if not self.world.agree(lambda: checkpoint.repair(path)):
            return False
        state = checkpoint.load_state(path)
        if state.get("digest") != self.digest:
            raise UserError(f"{path}: belongs to another configuration; give another --out")
        if self.sharded:
            state["model"] = sharding.spread_weights(self.model, state["model"])
            state["optimizer"] = sharding.spread_moments(self.optimizer, state["optimizer"])
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.step, self.epoch, self.batch = state["step"], state["epoch"], state["batch"]
        self.seconds, self.waited, self.best, self.history = state["seconds"], state["waited"], state["best"], json.loads(state["history"])
        self.sums = Sums(**state["sums"])
        self.sums.kappas = {name: [x.to(self.device) for x in values] for name, values in self.sums.kappas.items()}
        return True

    def _epoch(self, bar: tqdm) -> dict:
        """From the batch where the trainer stands to the last."""
        self.model.train()
        self.passes.check()
        run = self.config.run
        eigenvalues = self._eigenvalues()
        order = list(batches(len(self.train), self.config.optim.batch_size, run.seed, self.epoch))[self.batch :]
        own = [[index[row] for row in self.world.rows(len(index))] for index in order]
        for index, batch in zip(order, self.train.stream(own, derive(run.seed, "inputs", self.epoch)), strict=True):
            parts, kappas = self._step(index, batch)
            self.sums.add(parts, kappas, len(index))
            self.batch += 1
            bar.update()
            epoch = f"{self.epoch}/{self.config.optim.epochs}"
            bar.set_description_str(status(epoch, self.sums.means(), kappas, eigenvalues, self.best), refresh=False)
            stopped = self.world.largest(self.signals.came)
            if stopped or run.save_every and self.step % run.save_every == 0:
                self.seconds = time.monotonic() - self.started
                self._save(False)
            if stopped:
                self.world.agree(lambda: None)  # whoever leaves first may take the others along: not before the first has written
                raise Stopped(f"stopped by {signal.Signals(stopped).name} at step {self.step} (epoch {self.epoch}); {self.out} is saved")
        self._check_weights()
        eigenvalues = self._eigenvalues()
        record = {"epoch": self.epoch, "step": self.step, "lr": self.optimizer.param_groups[0]["lr"], **self.sums.result()}
        return {**record, **({"eigenvalues": eigenvalues} if eigenvalues else {})}

    def _step(self, index: list[int], batch: Batch) -> tuple[dict[str, float], dict[str, Tensor]]:
        """One step on the items `index` of the training set, of which `batch` are this process's."""
        self.step += 1
        done, values = self.gradient(index, batch)
        clip = sharding.clip if self.sharded else nn.utils.clip_grad_norm_
        norm = clip(self.parameters, self.config.optim.clip_norm or math.inf)
        if not torch.isfinite(norm):
            self._stop(f"the gradient's norm = {float(norm)}", index)
        self.optimizer.step()
        self.schedule.step()
        if hasattr(self.objective, "project_"):  # back to where its parameters may be
            self.objective.project_()
        if self.average:
            self.average.update_parameters(self.learned)
        return values, {name: x[1].detach()[done.present[name]] for name, x in done.leaves.items() if len(x) == 2}

    def gradient(self, index: list[int], batch: Batch) -> tuple[Embedded, dict[str, float]]:
        """Leave at every parameter the gradient of the loss of all items `index`; returns the loss and its parts as well."""
        noise, rows = derive(self.config.run.seed, "noise", self.step), self.world.rows(len(index))
        done = self.passes.embed(batch, rows.start, len(index), noise)
        laws = done.laws
        for name, tensors in done.leaves.items():
            finite = torch.stack([x.reshape(len(index), -1).isfinite().all(1) for x in tensors]).all(0)  # (B,)
            if not finite.all():
                wrong = [i for i, fine in zip(index, finite.tolist(), strict=True) if not fine]
                self._stop(f"the distribution of {name} is not finite", wrong)
        groups = () if self.groups is None else (self.groups[index],)
        keyed = {"seed": noise} if "seed" in self.takes else {}
        if "rows" in self.takes and self.world.size > 1:
            keyed["rows"] = slice(rows.start, rows.stop)
        if self.classes:
            keyed["labels"] = self.labels[index]
        torch.manual_seed(noise)  # for an objective that draws by itself: on all processes alike
        loss, parts = self.objective(laws, done.present, *groups, **keyed)
        values = {"loss": float(loss.detach()), **{name: float(value) for name, value in parts.items()}}
        wrong = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]
        if wrong:
            self._stop(", ".join(wrong), index)
        self.optimizer.zero_grad()
        loss.backward()
        self.passes.backward(done)
        self.world.mean_(p.grad for p in self.objective.parameters() if p.grad is not None)
        return done, values

    def _stop(self, what: str, index: list[int]) -> None:
        ids = [self.train.items[i].id for i in index]
        path = self.out / "nonfinite.json"
        if self.first:
            checkpoint.write_json(path, {"step": self.step, "epoch": self.epoch, "what": what, "ids": ids})
        shown = ", ".join(ids[:3]) + (f", ... ({len(ids)} items, all in {path})" if len(ids) > 3 else "")
        raise NonFiniteError(f"stopped at step {self.step} (epoch {self.epoch}): {what}; batch: {shown}")

    def _check_weights(self) -> None:
        broken = not all(torch.isfinite(sharding.local(p)).all() for p in self.parameters)
        if self.world.largest(int(broken)) if self.sharded else broken:
            raise NonFiniteError(f"the weights are not finite after step {self.step} (epoch {self.epoch}); try a smaller optim.lr")

    def _judge(self, record: dict) -> bool:
        """Validate, put the result into the epoch's record, and say whether it is the best so far."""
        mine = self._validate() if self.sharded else None  # all have to run the model; the first one's result counts
        results = self.world.agree(lambda: mine or self._validate())
        record["val_mrr"] = mean_mrr(results)
        record["val"] = {direction: metrics["MRR"] for direction, metrics in results.items()}
        improved = record["val_mrr"] > self.best["mrr"]
        if improved:
            self.best = {"epoch": self.epoch, "mrr": record["val_mrr"]}
        self.waited = 0 if improved else self.waited + 1
        return improved

    def _validate(self) -> dict[str, dict[str, float]]:
        model, objective = self._judged()
        if self.classes:
            return evaluate_classes(model, objective, self.val, self.classes, alone=False)
        M = getattr(objective, "M", None)
        return evaluate(model, self.val, self.config.run.eval_samples, derive(self.config.run.seed, "val"), metric=M)

    def _judged(self) -> nn.ModuleList:
        """The model, and the objective with what it learns, that are validated and kept."""
        return self.average.module if self.average else self.learned

    def _patience_is_over(self) -> bool:
        return 0 < self.config.run.patience <= self.waited

    def _parts(self) -> dict:
        """What has a state of its own."""
        parts = {"model": self.model, "objective": self.objective, "optimizer": self.optimizer, "schedule": self.schedule}
        return {**parts, **({"average": self.average} if self.average else {})}

    def _save(self, improved: bool) -> None:
        self._check_weights()
        model, objective = self._judged()
        weights = model.state_dict()
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        if self.sharded:
            parts["model"] = weights = sharding.whole(weights, self.first)
            parts["optimizer"] = sharding.whole(parts["optimizer"], self.first)
        if not self.first:
            return
        if improved:
            facts = {"digest": self.digest, "epoch": self.epoch, "val_mrr": self.best["mrr"]}
            learned = {OBJECTIVE + name: x for name, x in objective.state_dict().items()}  # M of m-LTM scores pairs too
            checkpoint.save_weights(self.out / "best.safetensors", {**weights, **learned}, facts)
        lines = "".join(json.dumps(record) + "\n" for record in self.history)
        checkpoint.write(self.out / "metrics.jsonl", lines)
        # Last, since it is what a resumed run believes: whatever it says has been written.
        state = {
            "digest": self.digest,
            **parts,
            **{"step": self.step, "epoch": self.epoch, "batch": self.batch, "sums": self.sums.state()},
            **{"seconds": self.seconds, "waited": self.waited, "best": self.best, "history": json.dumps(self.history)},
        }
        checkpoint.save_state(self.out / "last.pt", state)

    def _eigenvalues(self) -> list[float] | None:
        """The range of a learned metric's."""
        return self.objective.eigenvalue_range().tolist() if hasattr(self.objective, "eigenvalue_range") else None

    def _generators_kept(self) -> torch.random.fork_rng:
        """The caller's generators are as before when the block ends."""
        return torch.random.fork_rng([self.device] if self.device.type == "cuda" else [])
