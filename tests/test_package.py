"""The package as a whole: what it exports is tested, it imports from anywhere, it builds into an sdist and a wheel, its version is in one
place."""

import ast
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import transphere as ts

ROOT = Path(__file__).parent.parent
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


def names_used_in_tests():
    used = set()
    for path in TESTS:
        if path == Path(__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                used.add(node.attr)
            elif isinstance(node, ast.Name):
                used.add(node.id)
            elif isinstance(node, ast.ImportFrom):
                used.update(alias.name for alias in node.names)
    return used


def test_every_public_name_is_tested():
    public = set(ts.__all__) | set(ts.losses.__all__) | set(ts.distributions.__all__)
    methods = {n for cls in (ts.VonMisesFisher, ts.PowerSpherical, ts.HypersphericalUniform) for n in vars(cls) if not n.startswith("_")}
    missing = (public | methods) - names_used_in_tests() - {"arg_constraints", "dim"}
    assert not missing, f"public but not used in any test: {sorted(missing)}"


def test_every_public_function_is_documented_and_typed():
    for name in set(ts.__all__) - {"losses"}:
        thing = getattr(ts, name)
        assert thing.__doc__, name
        if not isinstance(thing, type):
            assert "return" in thing.__annotations__, name


def test_compiled_doors_are_tested():
    """What C++ exports to Python, ops aside (test_registration has those)."""
    doors = re.findall(r'm\.def\("(\w+)"', (ROOT / "csrc/ops/module.cpp").read_text())
    text = "".join(p.read_text() for p in TESTS)
    assert doors and all(door in text for door in doors)


def test_no_import_by_folder_name():
    """`kernels` is another project's name on PyPI; ours are transphere.kernels and so on."""
    pattern = re.compile(r"^\s*(?:from|import) (?:kernels|pyext|training)\b", re.M)
    for path in ROOT.glob("*/**/*.py"):
        if ".venv" not in path.parts and "build" not in path.parts:
            assert not pattern.search(path.read_text()), path


def test_kernels_know_no_torch():
    for path in [*ROOT.glob("csrc/*.h"), *ROOT.glob("csrc/cpu/*"), *ROOT.glob("csrc/cuda/*")]:
        assert "torch" not in re.sub(r"//.*", "", path.read_text()), path


def test_version_is_in_one_place():
    declared = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    assert ts.__version__ == declared == ts.build_info()["version"]
    holders = [p for folder in ("pyext", "kernels") for p in (ROOT / folder).rglob("*.py") if f'"{declared}"' in p.read_text()]
    assert not holders


def test_build_info():
    info = ts.build_info()
    assert info["extension"] is True and info["cpu"] and info["compiler"] and info["torch"]
    assert info["cuda"] is False or re.fullmatch(r"\d+\w?(;\d+\w?)*", info["cuda"])


def test_import_from_outside_the_repository(tmp_path):
    code = "import transphere, transphere.training.cli, transphere.kernels; print(transphere.build_info()['extension'])"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout.strip() == "True", result.stderr


def test_sdist_and_wheel(tmp_path):
    """An sdist holds all sources; a wheel built from it, unpacked elsewhere, works without the repository."""
    run = lambda *cmd, **kw: subprocess.run(cmd, check=True, capture_output=True, text=True, **kw)  # noqa: E731
    build = "import setuptools.build_meta as b; print(b.build_sdist({0!r}))"
    run("git", "clone", "-q", str(ROOT), str(tmp_path / "clone"))
    name = run(sys.executable, "-c", build.format(str(tmp_path)), cwd=tmp_path / "clone").stdout.split()[-1]
    with tarfile.open(tmp_path / name) as archive:
        members = archive.getnames()
        archive.extractall(tmp_path, filter="data")
    for part in ("csrc/philox.h", "csrc/cpu/vmf_sample.cpp", "csrc/ops/common.h", "tests/conftest.py", "LICENSE"):
        assert any(m.endswith(part) for m in members), part
    source = tmp_path / name.removesuffix(".tar.gz")
    command = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source))
    run(*command, env=os.environ | {"TRANSPHERE_CUDA": "0"})  # what is installed here was built with CUDA where there is a toolkit
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = archive.namelist()
        archive.extractall(tmp_path / "site")
    for part in ("ops/vmf_sample.py", "reference/philox.py", "kernels/vmf_sample.py", "training/cli.py", "py.typed"):
        assert f"transphere/{part}" in inside, part
    assert any(n.startswith("transphere/_C.") for n in inside) and any(n.endswith("recipes/ismir2024.toml") for n in inside)
    assert any(n.endswith("experiments/harnessed.toml") for n in inside)
    code = "import torch, transphere as t; print(t.__file__, t.build_info()['cuda'])\n"
    code += "print(t.vmf_sample(torch.eye(3), torch.ones(3), 2, backend='cpu').shape)"
    # -S keeps the editable install's finder out, so that the wheel is what is imported
    paths = os.pathsep.join([str(tmp_path / "site"), *(p for p in sys.path if p.endswith("site-packages"))])
    result = run(sys.executable, "-S", "-c", code, cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths})
    assert str(tmp_path / "site") in result.stdout and " False\n" in result.stdout and "torch.Size([3, 2, 3])" in result.stdout


def test_lint():
    result = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", str(ROOT)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
