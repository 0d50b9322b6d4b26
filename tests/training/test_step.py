"""What a step is made of: keyed dropout, chunks, optimisers, the average of the weights, bfloat16, TensorBoard."""

import copy
import json
import sys
import types

import pytest
import torch
from torch import nn

from transphere.training import checkpoint, config, config_rules
from transphere.training.batch import load_features
from transphere.training.batchnorm import SyncBatchNorm
from transphere.training.cli import main
from transphere.training.data.manifest import Manifest
from transphere.training.distributed import World, synchronised
from transphere.training.encoders.networks import build_encoder
from transphere.training.errors import UserError
from transphere.training.model import Branch
from transphere.training.optim import build_average, build_optimizer, build_schedule
from transphere.training.progress import quantiles
from transphere.training.run import fit, open_run
from transphere.training.seeding import Dropout, key_rows
from transphere.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


def recipe(manifest, tiny, *more, name="ismir2024"):
    return config.load(name, [*tiny, f"data.manifest={manifest}", *more])


def trainer_of(made, out):
    features = load_features(Manifest.read(made.data.manifest), made.data)
    return Trainer(made, features.split("train"), features.split("val"), out, "", progress=False)


def records(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("shape", [(40, 300), (40, 5, 7), (40, 1), (1, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_row_keeps_its_mask_however_the_batch_is_cut(shape, dtype):
    model = nn.Sequential(Dropout(0.3), Dropout(0.3))
    x = torch.ones(shape, dtype=dtype)

    def drop(first, rows, seed=7):
        key_rows(model, seed, first, rows, CPU)
        return model[0](x[first : first + rows])

    whole = drop(0, shape[0])
    assert whole.dtype == dtype and set(whole.unique().tolist()) <= {0.0, float(torch.ones((), dtype=dtype) / 0.7)}
    assert torch.equal(whole, torch.cat([drop(k, 1) for k in range(shape[0])]))
    if x.numel() > 100:
        assert not torch.equal(whole, drop(0, shape[0], seed=8)) and not torch.equal(whole, model[1](x))


def test_the_mask_is_random():
    """Share, and correlation of columns, of rows, and of layers, within five deviations of independence."""
    n, d, p = 512, 1024, 0.2
    model = nn.Sequential(Dropout(p), Dropout(p))
    key_rows(model, 3, 0, n, CPU)
    a, b = (layer(torch.ones(n, d, dtype=torch.float64)) * (1 - p) for layer in model)  # (n, d) of 0 and 1
    var = p * (1 - p)
    assert abs(a.mean() - (1 - p)) < 5 * (var / (n * d)) ** 0.5
    assert a.mean(0).std() == pytest.approx((var / n) ** 0.5, rel=0.2) and a.mean(1).std() == pytest.approx((var / d) ** 0.5, rel=0.2)
    u, v = a - (1 - p), b - (1 - p)
    for one, other in ((u[:, 1:], u[:, :-1]), (u[1:], u[:-1]), (u, v), (u[: n // 2], u[n // 2 :])):
        assert abs((one * other).mean()) < 5 * var / one.numel() ** 0.5


def test_dropout_without_keys_is_torchs_and_nothing_in_evaluation():
    x = torch.randn(6, 50)
    layer = Dropout(0.4)
    torch.manual_seed(1)
    expected = nn.functional.dropout(x, 0.4)
    torch.manual_seed(1)
    assert torch.equal(layer(x), expected)
    key_rows(layer, 0, 0, 6, CPU)
    assert torch.equal(layer.eval()(x), x)
    y = x.clone().requires_grad_()
    out = layer.train()(y)
    out.sum().backward()
    assert torch.equal(y.grad, (out != 0) / 0.6)


def test_chunks_change_nothing_but_rounding(manifest, tiny, tmp_path):
    for k in (1, 3):
        fit(recipe(manifest, tiny, f"optim.accumulate={k}"), tmp_path / str(k), progress=False)
    for one, other in zip(records(tmp_path / "1"), records(tmp_path / "3"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)


def test_batchnorm_and_chunks_exclude_each_other(manifest, tiny, tmp_path):
    trainer = trainer_of(recipe(manifest, tiny, "optim.accumulate=2"), tmp_path)
    trainer.model["image"].encoder = nn.Sequential(trainer.model["image"].encoder, nn.BatchNorm1d(12))
    with pytest.raises(UserError, match="optim.accumulate: expected 1 with BatchNorm.* got image.encoder.1"):
        trainer.fit()


def test_batchnorm_over_processes(tmp_path):
    """On a CPU ours: alone it is torch's own, forward, backward, its running statistics and afterwards, in frozen layers as well."""
    assert isinstance(synchronised(nn.Sequential(nn.BatchNorm1d(3)), World(0, 2, torch.device("meta")))[0], nn.SyncBatchNorm)
    encoder = build_encoder(config.Encoder("resnet18", size="tiny", freeze=1)).double()
    twin = synchronised(copy.deepcopy(encoder), World(0, 2))
    assert type(synchronised(encoder, World())) is type(encoder) and twin.state_dict().keys() == encoder.state_dict().keys()
    assert sum(isinstance(module, SyncBatchNorm) for module in twin.modules()) == 12
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        for _ in range(2):
            for one in (encoder, twin):
                one.train()(x).square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    for (name, p), q in zip(encoder.named_parameters(), twin.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-9)
    for (name, p), q in zip(encoder.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(p, q, msg=name)
    torch.testing.assert_close(encoder.eval()(x), twin.eval()(x))


@pytest.mark.parametrize("name", config_rules.OPTIMISERS)
def test_optimisers_are_torchs(name):
    p = nn.Parameter(torch.ones(3))
    optim = config.Optim(name=name, lr=0.1, weight_decay=0.5, momentum=0.8, schedule="step", step_epochs=1, gamma=0.5)
    made = build_optimizer(optim, [p])
    schedule = build_schedule(optim, made, 2)
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    rates = []
    for _ in range(4):
        rates.append(made.param_groups[0]["lr"])
        p.grad = torch.ones(3)
        made.step()
        schedule.step()
    assert type(made) is kinds[name] and made.param_groups[0]["weight_decay"] == 0.5
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05])
    assert name != "sgd" or made.param_groups[0]["momentum"] == 0.8


@pytest.mark.parametrize("name", config_rules.OPTIMISERS)
def test_a_run_with_every_optimiser(name, manifest, tiny, tmp_path):
    more = ("optim.lr=0.1", "optim.clip_norm=5") if name == "sgd" else ("optim.lr=0.01",)
    fit(recipe(manifest, tiny, f"optim.name={name}", *more), tmp_path / "run", progress=False)
    first, *_, last = records(tmp_path / "run")
    assert last["loss"] < first["loss"]


def test_the_average_is_what_is_judged_and_kept(manifest, tiny, tmp_path):
    fit(recipe(manifest, tiny, "optim.ema=0.8"), tmp_path / "ema", progress=False)
    fit(recipe(manifest, tiny), tmp_path / "plain", progress=False)
    ema, plain = (checkpoint.load_state(tmp_path / name / "last.pt") for name in ("ema", "plain"))
    for name, x in plain["model"].items():
        assert torch.equal(x, ema["model"][name])  # averaging does not touch the training
    assert records(tmp_path / "ema")[-1]["val"] != records(tmp_path / "plain")[-1]["val"]
    weights, facts = checkpoint.load_weights(tmp_path / "ema" / "best.safetensors")
    if facts["epoch"] == ema["epoch"]:
        assert all(torch.equal(x, ema["average"]["module.0." + name]) for name, x in weights.items())
    assert weights.keys() == plain["model"].keys() and open_run(tmp_path / "ema").epoch == facts["epoch"]


def test_the_average_is_its_formula():
    model = nn.Linear(2, 1, bias=False)
    average = build_average(config.Optim(ema=0.9), model)
    values = [1.0, 3.0, -2.0]
    for value in values:
        nn.init.constant_(model.weight, value)
        average.update_parameters(model)
    expected = 0.9 * (0.9 * 1.0 + 0.1 * 3.0) + 0.1 * -2.0
    torch.testing.assert_close(average.module.weight, torch.full((1, 2), expected))
    assert build_average(config.Optim(), model) is None


def test_bfloat16_reaches_encoders_and_nothing_else(manifest, tiny, tmp_path):
    seen = {}

    class Encoder(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.linear = inner, nn.Linear(12, 12)

        def forward(self, x):
            out = self.linear(self.inner(x))
            seen["encoder"] = out.dtype
            return out

    trainer = trainer_of(recipe(manifest, tiny, "run.precision=bf16"), tmp_path)
    trainer.model["image"].encoder = Encoder(trainer.model["image"].encoder)
    hook = trainer.model["image"].head.register_forward_hook(lambda _, x, law: seen.update(head=x[0].dtype, law=law.loc.dtype))
    _, values = trainer.gradient(list(range(8)), trainer.train.select(list(range(8))))
    assert seen == {"encoder": torch.bfloat16, "head": torch.float32, "law": torch.float32}
    assert trainer.model["image"].encoder.linear.weight.grad.dtype == torch.float32
    assert isinstance(values["loss"], float)
    hook.remove()


def test_a_head_does_not_round_under_autocast():
    x = torch.randn(4, 3)
    branch = Branch(nn.Identity(), nn.Linear(3, 2))
    with torch.autocast("cpu", torch.bfloat16):
        out = branch(x)
    assert torch.equal(out, branch.head(x))


@pytest.mark.slow
def test_compiled(manifest, tiny, tmp_path):
    for compiled in ("false", "true"):
        fit(recipe(manifest, tiny, f"run.compile={compiled}", "optim.epochs=2"), tmp_path / compiled, progress=False)
    for one, other in zip(records(tmp_path / "false"), records(tmp_path / "true"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_tensorboard_that_is_not_there(manifest, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    argv = ["fit", "ismir2024", "--data", str(manifest), "--out", str(tmp_path / "run"), "--set", "run.tensorboard=true"]
    assert main(argv) == 2
    assert "TensorBoard is not installed; pip install tensorboard" in capsys.readouterr().err


def test_tensorboard_gets_every_number_of_an_epoch(manifest, tiny, tmp_path, monkeypatch):
    written = {}

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            assert folder == str(tmp_path / "run" / "tensorboard") and purge_step == 1

        def add_scalar(self, tag, value, step):
            written[tag, step] = float(value)

        def flush(self):
            pass

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    fit(recipe(manifest, tiny, "run.tensorboard=true", "optim.epochs=2", name="m-ltm"), tmp_path / "run", progress=False)
    for record in records(tmp_path / "run"):
        step = record["step"]
        assert written["loss", step] == record["loss"] and written["val_mrr", step] == record["val_mrr"]
        assert written["eigenvalues/0", step] == record["eigenvalues"][0]
        assert written["val/image->text", step] == record["val"]["image->text"]
        assert [written[f"kappa/image/{i}", step] for i in range(5)] == record["kappa"]["image"]


def test_the_eigenvalues_of_m_are_in_the_records_and_the_line(manifest, tiny, tmp_path, capsys):
    argv = ["fit", "m-ltm", "--data", str(manifest), "--out", str(tmp_path / "run")]
    assert main([*argv, *[word for text in tiny for word in ("--set", text)]]) == 0
    last = records(tmp_path / "run")[-1]
    M = checkpoint.load_state(tmp_path / "run" / "last.pt")["objective"]["M"]
    expected = torch.linalg.eigvalsh(M.double())
    assert last["eigenvalues"] == pytest.approx([float(expected[0]), float(expected[-1])], abs=1e-6)
    line = capsys.readouterr().err
    assert " M [" in line and " kappa " in line and "matching" in line


def test_quantiles_are_elements():
    x = torch.arange(101.0)[torch.randperm(101)]
    assert quantiles(x) == [0, 5, 50, 95, 100] and quantiles(x[:0]) == [] and quantiles(torch.tensor([2.0])) == [2.0] * 5


@pytest.mark.parametrize(
    "text",
    [
        "optim.name=lion", "optim.momentum=1", "optim.warmup=-1", "optim.step_epochs=0", "optim.gamma=0", "optim.gamma=2",
        "optim.accumulate=0", "optim.accumulate=1000", "optim.ema=1", "optim.ema=-0.1", "optim.schedule=linear",
        "run.save_every=-1", "run.timeout=0", "run.precision=fp16", "run.compile=1", "run.tensorboard=yes",
    ],
)  # fmt: skip
def test_keys_that_are_out_of_range(text):
    with pytest.raises(UserError, match=text.split("=")[0]):
        config.load("ismir2024", [text])
