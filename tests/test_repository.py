"""The commit of a checkout is read from the files of Git, and no process is started."""

from __future__ import annotations

import os
import subprocess

import pytest

from deltawitness.repository import git_commit, project_root


def git(folder, *arguments):
    done = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """A repository with one commit."""
    folder = tmp_path / "repository"
    (folder / "jobs").mkdir(parents=True)
    git(folder, "init", "-b", "main")
    git(folder, "commit", "--allow-empty", "-m", "first")
    return folder


def test_the_commit_of_a_branch(repository):
    """A folder of the repository has the commit of the branch that is checked out."""
    assert git_commit(str(repository / "jobs")) == git(repository, "rev-parse", "HEAD")


def test_the_commit_of_a_packed_branch(repository):
    """`git gc` moves branches to one file."""
    expected = git(repository, "rev-parse", "HEAD")
    git(repository, "pack-refs", "--all")
    assert git_commit(str(repository)) == expected


def test_a_commit_that_is_checked_out_itself(repository):
    """A checkout of a commit, as CI systems make it, is on no branch."""
    git(repository, "checkout", "--detach")
    assert git_commit(str(repository)) == git(repository, "rev-parse", "HEAD")


def test_the_commit_of_another_working_tree(repository, tmp_path):
    """A working tree of `git worktree` shares the branches of its repository."""
    git(repository, "worktree", "add", "-b", "other", str(tmp_path / "other"))
    git(tmp_path / "other", "commit", "--allow-empty", "-m", "second")
    expected = git(tmp_path / "other", "rev-parse", "HEAD")
    assert git_commit(str(tmp_path / "other")) == expected
    assert expected != git_commit(str(repository))


@pytest.mark.parametrize(
    "text",
    ["", "ref: refs/heads/none", "ref: ../../secret", "ref: refs/../../secret", "no commit"],
)
def test_a_repository_that_cannot_be_read_has_no_commit(repository, text):
    """A branch without a commit, a damaged file, and one that names a file outside of the branches."""
    (repository / "secret").write_text("a" * 40)
    (repository / ".git/HEAD").write_text(text)
    assert git_commit(str(repository)) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFO on this platform")
def test_a_fifo_in_a_repository_does_not_block(repository):
    """To open a FIFO for reading waits until a writer opens it."""
    (repository / ".git/HEAD").unlink()
    os.mkfifo(repository / ".git/HEAD")
    assert git_commit(str(repository)) is None


def test_a_folder_outside_any_repository_has_no_commit(tmp_path, monkeypatch):
    """The home directory is not searched: it may be a repository of its own."""
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "dotfiles")
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert git_commit(str(tmp_path / "work")) is None
    assert project_root(str(tmp_path / "work")) is None


def test_a_project_without_a_repository_begins_at_its_file(tmp_path):
    """The nearest folder with `pyproject.toml` is the project's."""
    (tmp_path / "app/src").mkdir(parents=True)
    (tmp_path / "app/pyproject.toml").touch()
    assert project_root(str(tmp_path / "app/src")) == str(tmp_path / "app")
