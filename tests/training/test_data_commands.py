"""transphere data fake, convert, audit and list, as typed; and a model trained on what they make."""

import json

import pytest

from transphere.training.cli import main
from transphere.training.data.manifest import Manifest
from transphere.training.data.readers import READERS

pytestmark = pytest.mark.usefixtures("one_thread")


def test_fake_convert_audit_fit(tmp_path, capsys, tiny):
    """Attributes and classes of CUB, which are vectors, train as any other modality."""
    folder = tmp_path / "birds é"
    assert main(["data", "fake", "cub", str(folder), "--items", "60"]) == 0
    assert f"next: transphere data convert cub {folder}" in capsys.readouterr().out
    assert main(["data", "convert", "cub", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert "57 items" in out and "image 57, text 56, attributes 57, class 57" in out and f"transphere data audit {folder}" in out
    assert "warning: 3 files or lines could not be used; 2 items were left out" in err
    assert main(["data", "audit", str(folder / "manifest.jsonl"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["modalities"]["attributes"]["dim"] == 312
    sets = [word for text in [*tiny, 'data.modalities=["attributes","class"]'] for word in ("--set", text)]
    run = tmp_path / "run"
    assert main(["fit", "ismir2024", "--data", str(folder / "manifest.jsonl"), "--out", str(run), *sets]) == 0
    assert main(["eval", str(run), "--json"]) == 0
    assert json.loads((run / "test.json").read_text())["directions"].keys() == {"attributes->class", "class->attributes"}


def fails(argv, capsys, *words):
    assert main(argv) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("transphere: error: ")]
    assert len(error) == 1 and all(word in error[0] for word in words), error


def test_errors_are_one_line_that_helps(tmp_path, capsys):
    folder = str(tmp_path / "d")
    fails(["data", "fake", "cubs", folder], capsys, "did you mean 'cub'")
    assert main(["data", "fake", "ucf101", folder]) == 0
    fails(["data", "fake", "ucf101", folder], capsys, "new or empty")
    fails(["data", "convert", "ucf101", folder, "--variant", "split4"], capsys, "split1, split2, split3")
    fails(["data", "convert", "ucf101", folder, "--strict"], capsys, "--strict")
    fails(["data", "convert", "clotho", folder], capsys, "expected clotho_captions_development.csv or", "found UCF-101, ucfTrainTestlist")
    fails(["data", "audit", folder], capsys, "cannot be read")
    assert main(["data", "convert", "ucf101", folder, "--split", "train", "--val", "0.3"]) == 0
    assert "no validation items" not in capsys.readouterr().out
    fails(["data", "convert", "ucf101", folder], capsys, "--overwrite")
    assert main(["data", "convert", "ucf101", folder, "--overwrite", "--quick"]) == 0
    assert "no validation items, which choose the epoch: --val 0.1" in capsys.readouterr().out
    assert {item.split for item in Manifest.read(tmp_path / "d" / "manifest.jsonl").items} == {"train", "test"}


def test_only_ten_are_named(tmp_path, capsys):
    assert main(["data", "fake", "clotho", str(tmp_path / "c"), "--items", "30"]) == 0
    for file in (tmp_path / "c" / "development").glob("*.wav"):
        file.unlink()
    capsys.readouterr()
    assert main(["data", "convert", "clotho", str(tmp_path / "c")]) == 0
    err = capsys.readouterr().err
    assert err.count(": missing\n") == 10
    assert "warning: 20 files or lines could not be used (the first 10 are named above" in err and "20 items were left out" in err


def test_list_names_every_dataset(capsys):
    assert main(["data", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in (*READERS, "tux", "emoji"))


@pytest.mark.parametrize("command", ["convert", "fake", "audit"])
def test_help(command, capsys):
    with pytest.raises(SystemExit):
        main(["data", command, "--help"])
    assert "usage: transphere data" in capsys.readouterr().out


RAW = [  # dataset, clips, recipe, modality -> network at test width: what the papers train on these
    ("audiocaps", 12, "m-ltm", {"audio": "pann-resnet38", "text": "bert"}),
    ("yt8m-musicvideo", 24, "ismir2024", {"audio": "clap", "image": "clip-image", "text": "clip-text"}),
    ("flickr8k", 12, "coordination-pcmc", {"image": "clip-image", "text": "clip-text", "speech": "hubert"}),
    ("cub", 60, "coordination-pcmc", {"image": "clip-image", "text": "clip-text"}),
    ("crema-d", 36, "mmcosine", {"audio": "resnet18-audio", "image": "resnet18", "class": "bert"}),
]


@pytest.mark.parametrize(("name", "n", "recipe", "networks"), RAW)
def test_look_alikes_train_from_their_files(name, n, recipe, networks, tmp_path):
    """Files of a look-alike, some of them broken, through readers and pipelines to a trained model."""
    validation = ["--val", "0.4"] if name == "crema-d" else []
    assert main(["data", "fake", name, str(tmp_path / "d"), "--items", str(n)]) == 0
    assert main(["data", "convert", name, str(tmp_path / "d"), *validation]) == 0
    settings = [f'model.encoders.{modality}={{name="{network}",size="tiny"}}' for modality, network in networks.items()]
    settings += ["optim.epochs=1", "optim.batch_size=8", "run.device=cpu", "run.eval_samples=2", "data.workers=0"]
    sets = [word for text in settings for word in ("--set", text)]
    assert main(["fit", recipe, "--data", str(tmp_path / "d" / "manifest.jsonl"), "--out", str(tmp_path / "run"), *sets]) == 0
