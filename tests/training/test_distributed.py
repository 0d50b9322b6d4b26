"""Several processes give what one gives; one that is lost ends the job."""

import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from transphere.training import check_grads, check_resume, config, config_rules
from transphere.training.batch import load_features
from transphere.training.cli import main
from transphere.training.data.convert import convert
from transphere.training.data.fakes import fake
from transphere.training.data.manifest import Manifest
from transphere.training.distributed import World, joined
from transphere.training.errors import LostProcess, UserError
from transphere.training.processes import launch
from transphere.training.run import fit, open_run
from transphere.training.seeding import derive
from transphere.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")
REQUIRED = {"entropic-contrastive": ["objective.eps=0.1"], "pcmc": ["objective.learnable=true"], "pcme": ["objective.uniformity=1.0"]}
DUPLICATES = {"sliced": None, "learning-to-match": "positive", "mmcosine": None, "softmax": None, "gated": None, "film": None}


def recipe(manifest, tiny, name, *more):
    duplicates = DUPLICATES.get(name, "ignore")
    options = REQUIRED.get(name, []) + ([f"objective.duplicates={duplicates}"] if duplicates else [])
    return config.load("ismir2024", [*tiny, f"data.manifest={manifest}", f"objective.name={name}", *options, *more])


@pytest.fixture
def gaps(write_manifest, tmp_path):
    """A manifest with missing modalities and shared captions."""
    return write_manifest(tmp_path / "gaps.jsonl", items=70, missing=0.3)


@pytest.fixture
def videos(tmp_path):
    """A function of how many clips have a sound: MMCosine's model of reduced width on a look-alike, with texts beside."""
    fake("crema-d", tmp_path / "cd")
    found, _ = convert("crema-d", tmp_path / "cd", val=0.3, progress=False)
    items = sorted((item for item in found.items if item.modalities["audio"]), key=lambda item: item.split != "train")

    def make(sounds):
        heard = [replace(item, modalities={**item.modalities, **({} if i < sounds else {"audio": None})}) for i, item in enumerate(items)]
        path = Manifest.write(tmp_path / "cd" / f"{sounds}.jsonl", heard).path
        small = [f"model.encoders.{m}.size=tiny" for m in ("audio", "image", "class")]
        sets = [*small, "model.encoders.class.name=bert", 'data.modalities=["audio", "image", "class"]', "model.head=linear"]
        more = ["model.dim=16", "model.encoders.image.frames=2", "data.workers=0", "run.device=cpu", "run.sync_batchnorm=true"]
        return config.load("mmcosine-full", [*sets, *more, f"data.manifest={path}"])

    return make


@pytest.mark.parametrize("size", [2])
def test_gradients_are_those_of_one_process(size, gaps, videos, tiny):
    """Every parameter, the temperature and M as well, with dropout, chunks, missing modalities and shared captions; batch norms over all
    processes, of which one has no sound."""
    made = [
        recipe(gaps, tiny, "harnessed"),
        recipe(gaps, tiny, "harnessed", "objective.debias=true", "optim.accumulate=3"),
        recipe(gaps, tiny, "pcmc", "optim.accumulate=2"),
        recipe(gaps, tiny, "learning-to-match"),
        recipe(gaps, tiny, "learning-to-match", "objective.sharded=true"),
        recipe(gaps, tiny, "learning-to-match", "objective.sharded=true", "objective.scale=max", "optim.accumulate=3"),
        videos(6),
        videos(6).replace(run={"sync_batchnorm": False, "shard": True}, optim={"accumulate": 2}),
        recipe(gaps, tiny, "mpc"),
        videos(1),
    ]
    *results, alone = check_grads.compare_all(made, size)
    for result in results:
        assert result.good, result
    assert result.parameters >= 24 and alone.loss < 0.1  # its blank counts in the statistics, but nobody waits for it in vain


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 4])
def test_gradients_of_every_loss(size, gaps, tiny):
    names = [name for name in config_rules.OBJECTIVES if name not in ("gated", "film")]  # these take two modalities
    made = [recipe(gaps, tiny, name, f"optim.accumulate={k}") for name in names for k in (1, 3)]
    spread = ("learning-to-match", "objective.sharded=true", "optim.accumulate=3")
    made += [recipe(gaps, tiny, *spread, f"objective.{more}") for more in ("scale=max", "metric=diagonal", "scale=detached max")]
    for one, result in zip(made, check_grads.compare_all(made, size), strict=True):
        assert result.good, (one.objective.name, one.optim.accumulate, result)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_gradient_is_that_of_the_plain_loss(accumulate, gaps, tiny, tmp_path):
    """One pass of autograd from the loss to the parameters, as anyone would write it."""
    made = recipe(gaps, tiny, "harnessed", "model.dropout=0", f"optim.accumulate={accumulate}")
    got = check_grads.gradient(made, World())
    features = load_features(Manifest.read(gaps), made.data)
    trainer = Trainer(made, features.split("train"), features.split("val"), tmp_path, "", progress=False)
    trainer.model.double()
    trainer.step = 1
    index = next(iter(check_grads.batches(len(trainer.train), 32, 0, 1)))
    batch = check_grads._double(trainer.train.select(index))
    noise = derive(made.run.seed, "noise", 1)
    loss, _ = trainer.objective(trainer.model(batch.inputs), batch.present, trainer.groups[index], seed=noise)
    loss.backward()
    assert float(got[""]) == pytest.approx(loss.item(), rel=1e-13)
    for name, p in trainer.model.named_parameters():
        torch.testing.assert_close(got[f"model.{name}"], p.grad, rtol=1e-10, atol=1e-13)


def test_check_grads(gaps, tiny, capsys, monkeypatch):
    argv = ["check", "grads", "ismir2024", "--data", str(gaps), "--nproc", "1", *[w for t in tiny for w in ("--set", t)]]
    assert main(argv) == 0
    assert "24 parameters" in capsys.readouterr().out
    honest = check_grads.gradient
    calls = []

    def wrong(made, world):
        calls.append(made)
        result = honest(made, world)
        return {name: x * (len(calls) if name.endswith("text.head.loc.bias") else 1) for name, x in result.items()}

    monkeypatch.setattr(check_grads, "gradient", wrong)
    assert main(argv) == 1
    assert "NOT" in capsys.readouterr().out
    for count in ("0", "33"):  # none, more than a batch has items
        assert main([*argv[:5], "--nproc", count, *argv[7:]]) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.slow)])
def test_a_process_that_is_gone_or_hangs_ends_the_others(number, manifest, tiny, tmp_path):
    made = recipe(manifest, tiny, "harnessed", "optim.batch_size=8")
    codes = launch(2, check_resume._train, (made, tmp_path / "run", 24, 3, number), patience=20 if number == signal.SIGKILL else 10)
    assert codes == [4, -signal.SIGKILL]


def dies_in_a_solve(world, made, out):
    """As check_resume._train, but the second process is killed amid the iterations of a problem that both solve."""
    module = importlib.import_module("transphere.ops.sinkhorn_sharded")
    add_up, calls = module._sum, itertools.count()

    def killed(x, group):
        if world.rank == 1 and next(calls) == 100:
            os.kill(os.getpid(), signal.SIGKILL)
        return add_up(x, group)

    module._sum = killed
    check_resume._train(world, made, out, 24, 0, 0)


def test_a_process_that_is_gone_amid_a_problem_ends_the_others(manifest, tiny, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # where the processes look for the function above
    made = recipe(manifest, tiny, "learning-to-match", "objective.sharded=true", "optim.batch_size=8")
    assert launch(2, dies_in_a_solve, (made, tmp_path / "run"), patience=20) == [4, -signal.SIGKILL]


@pytest.mark.parametrize("name, text", [("WORLD_SIZE", "two"), ("WORLD_SIZE", "0"), ("RANK", "2"), ("MASTER_PORT", "-1")])
def test_variables_that_are_wrong_are_named(name, text, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(name, text)
    with pytest.raises(UserError, match=f"{name}: expected a whole number from . to .*, got '{text}'"), joined("cpu", 5):
        pass


def test_a_problem_is_spread_only_if_it_is_balanced(gaps, tiny):
    with pytest.raises(UserError, match="mass: expected None with sharded"):
        check_grads.gradient(recipe(gaps, tiny, "learning-to-match", "objective.sharded=true", "objective.mass=0.8"), World())


def test_a_lost_process_has_a_message_and_other_errors_are_as_they_were():
    message = "process 1 of 2: another one is gone, or did not answer within run.timeout"
    with pytest.raises(LostProcess, match=message), World(1, 2).watched():
        raise RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1")
    for world, text in ((World(1, 2), "shapes cannot be multiplied"), (World(), "gloo")):
        with pytest.raises(RuntimeError, match=text), world.watched():
            raise RuntimeError(text)


def test_rows_are_shared_evenly():
    for n in (2, 5, 16, 17):
        for size in (1, 2, 4):
            shares = [World(rank, size).rows(n) for rank in range(size)]
            assert sum(map(list, shares), []) == list(range(n))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_more_processes_than_items(manifest, tiny, tmp_path):
    features = load_features(Manifest.read(manifest), recipe(manifest, tiny, "harnessed").data)
    with pytest.raises(UserError, match="cannot be shared by 64 processes"):
        made = recipe(manifest, tiny, "harnessed")
        Trainer(made, features.split("train"), features.split("val"), tmp_path, "", False, world=World(1, 64))


def torchrun(*words, nproc=2):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(nproc)]
    argv = [*launcher, "-m", "transphere.training", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_torchrun_trains_what_one_process_trains(manifest, tiny, tmp_path):
    sets = [word for text in (*tiny, "optim.epochs=2", "run.save_every=1") for word in ("--set", text)]
    done = torchrun("fit", "ismir2024", "--data", str(manifest), "--out", str(tmp_path / "two"), *sets)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best epoch") == 1
    made = config.load("ismir2024", [*tiny, "optim.epochs=2", f"data.manifest={manifest}"])
    fit(made, tmp_path / "one", progress=False)
    one, two = ([json.loads(line) for line in (tmp_path / out / "metrics.jsonl").read_text().splitlines()] for out in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4) and a["sliced"] == pytest.approx(b["sliced"], rel=1e-4)
        assert a["val_mrr"] == pytest.approx(b["val_mrr"], abs=0.05)


@pytest.mark.slow
def test_all_processes_refuse_alike(manifest, tiny, tmp_path):
    sets = [word for text in (*tiny, "optim.epochs=1") for word in ("--set", text)]
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "mine.txt").write_text("")
    refused = torchrun("fit", "ismir2024", "--data", str(manifest), "--out", str(tmp_path / "two"), *sets)
    assert refused.returncode != 0 and refused.stderr.count("transphere: error: --out") == 1


RAW = """
[data]
workers = 1
[model]
dim = 16
[model.encoders]
image = {name = "clip-image", size = "tiny", augment = ["crop", "flip"]}
text = {name = "bert", size = "tiny", augment = ["drop"], lr = 3e-3}
speech = {name = "pann-resnet38", size = "tiny", seconds = 1.0, augment = ["crop", "mask"]}
[objective]
n_samples = 4
n_projections = 8
[optim]
batch_size = 12
ema = 0.9
"""


@pytest.mark.slow
def test_encoders_that_are_trained(tmp_path, capsys):
    """Files read by other processes, augmentation, dropout inside an encoder, BatchNorm, two rates, items without a picture."""
    assert main(["data", "fake", "flickr8k", str(tmp_path / "data")]) == 0
    assert main(["data", "convert", "flickr8k", str(tmp_path / "data")]) == 0
    (tmp_path / "raw.toml").write_text(RAW)
    words = [str(tmp_path / "raw.toml"), "--data", str(tmp_path / "data" / "manifest.jsonl"), "--set", "run.eval_samples=4"]
    assert main(["check", "grads", *words, "--nproc", "2"]) == 0
    assert main(["check", "resume", *words, "--nproc", "1"]) == 0
    assert main(["check", "resume", *words, "--nproc", "2"]) == 0
    spread = [*words, "--set", "run.shard=true", "--set", "optim.ema=0"]
    assert main(["check", "grads", *spread, "--nproc", "2"]) == 0
    assert main(["check", "resume", *spread, "--nproc", "2"]) == 0
    for name, more in (("spread", spread), ("whole", [*words, "--set", "optim.ema=0"])):
        done = torchrun("fit", *more, "--out", str(tmp_path / name), "--set", "optim.epochs=2", "--set", "run.device=cpu")
        assert done.returncode == 0, done.stderr
    one, two = (open_run(tmp_path / name).model.state_dict() for name in ("spread", "whole"))
    assert one.keys() == two.keys() and all(torch.equal(x, two[name]) for name, x in one.items())  # a sum of two has one order
