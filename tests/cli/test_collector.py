"""The files for a Collector are written from the package, and nothing is replaced without being asked to."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from deltawitness.cli.app import app
from deltawitness.collector_files import FILES, write_collector_files

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "collector"


def invoke(*arguments):
    """Run the command; return its exit code, its output and its errors."""
    done = CliRunner().invoke(app, ["collector", "init", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_the_wheel_has_every_file():
    """The build copies each file, or the folder that it is in."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    included = build["targets"]["wheel"]["force-include"]
    assert all(target == f"deltawitness/{source}" for source, target in included.items())
    found = set()
    for source in included:
        path = ROOT / source
        below = [path] if path.is_file() else filter(Path.is_file, path.rglob("*"))
        found |= {one.relative_to(SOURCE).as_posix() for one in below}
    assert found == set(FILES)


def test_files_are_written_once(tmp_path):
    """A second call writes nothing; one that differs is replaced only with --force."""
    folder = tmp_path / "new" / "monitoring"
    code, out, _ = invoke(folder)
    assert (code, f"{len(FILES)} written, 0 unchanged" in out) == (0, True)
    assert all((folder / name).read_bytes() == (SOURCE / name).read_bytes() for name in FILES)
    code, out, _ = invoke(folder, "--json")
    assert (code, json.loads(out)["written"]) == (0, [])

    (folder / "config.yaml").write_text("mine")
    (folder / "tempo.yaml").unlink()
    code, out, err = invoke(folder)
    assert (code, out) == (1, "")
    assert "config.yaml exists with other content: pass --force" in err
    assert not (folder / "tempo.yaml").exists()
    (folder / "notes.txt").write_text("mine")
    code, out, _ = invoke(folder, "--force", "--json")
    assert code == 0
    assert json.loads(out)["written"] == ["config.yaml", "tempo.yaml"]
    assert (folder / "notes.txt").read_text() == "mine"
    assert not list(folder.rglob(".*"))


def test_errors_are_one_line(tmp_path):
    """A file in place of the folder, or of a folder in it, and a folder in place of a file."""
    (tmp_path / "file").write_text("")
    for place, code in (("file", 2), ("file/below", 1)):
        got, out, err = invoke(tmp_path / place)
        assert (got, out, err.count("\n")) == (code, "", 1), err
    (tmp_path / "other" / "config.yaml").mkdir(parents=True)
    got, out, err = invoke(tmp_path / "other", "--force")
    assert (got, out, err.count("\n")) == (1, "", 1), err


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_that_cannot_be_written(tmp_path):
    """The message names the path."""
    tmp_path.chmod(0o500)
    code, _, err = invoke(tmp_path / "monitoring")
    assert (code, "cannot be written" in err) == (1, True)


def test_compose_mounts_only_files_that_are_written(tmp_path):
    """Each mounted path is there, and each published port is open on this machine only."""
    write_collector_files(tmp_path)
    compose = yaml.safe_load((tmp_path / "compose.yaml").read_text())
    mounted = []
    for service in compose["services"].values():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")
        for volume in service["volumes"]:
            source, _, _ = volume.partition(":")
            if source.startswith("./"):
                mounted.append(source)
                assert (tmp_path / source).exists(), source
                assert volume.endswith(":ro")
            else:
                assert source in compose["volumes"]
        assert set(service.get("depends_on", ())) <= set(compose["services"])
    assert len(mounted) == 7
