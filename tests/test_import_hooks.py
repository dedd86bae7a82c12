"""Functions that are called when a module is imported."""

from __future__ import annotations

import importlib
import inspect
import sys
import threading
from importlib.machinery import SourceFileLoader

import pytest
import wrapt

from deltawitness.import_hooks import when_imported

SOURCE = "value = 1\n\n\ndef double(x):\n    return 2 * x\n"


@pytest.fixture
def module(tmp_path, monkeypatch, request):
    """The name of a module that can be imported and that no other test imports."""
    name = f"hooked_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def test_a_hook_gets_the_imported_module_once(module):
    """A hook is called after the module has been executed, and not again by a further import."""
    seen = []
    when_imported(module, lambda found: seen.append((found.__name__, found.value)))
    assert seen == []
    importlib.import_module(module)
    importlib.import_module(module)
    assert seen == [(module, 1)]


def test_a_hook_of_an_imported_module_is_called_at_once(module):
    """A hook that comes after the import is called immediately."""
    imported, seen = importlib.import_module(module), []
    when_imported(module, seen.append)
    assert seen == [imported]


def test_hooks_are_called_in_their_order(module):
    """Several hooks of a module are called in the order in which they were given."""
    seen = []
    for number in range(3):
        when_imported(module, lambda _, number=number: seen.append(number))
    importlib.import_module(module)
    assert seen == [0, 1, 2]


def test_a_module_with_a_hook_has_its_own_loader_and_source(module):
    """After the import the loader is that of the module, so that its source and reloads work."""
    when_imported(module, lambda _: None)
    imported = importlib.import_module(module)
    assert type(imported.__loader__) is type(imported.__spec__.loader) is SourceFileLoader
    assert "return 2 * x" in inspect.getsource(imported.double)
    assert importlib.reload(imported) is imported


def test_a_package_with_a_hook_finds_its_submodules(tmp_path, monkeypatch):
    """A hook of a submodule is called when the submodule is imported, not when its package is."""
    (tmp_path / "hooked_package").mkdir()
    (tmp_path / "hooked_package/__init__.py").write_text("")
    (tmp_path / "hooked_package/inner.py").write_text("value = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    when_imported("hooked_package", lambda found: seen.append(found.__name__))
    when_imported("hooked_package.inner", lambda found: seen.append(found.__name__))
    importlib.import_module("hooked_package")
    assert seen == ["hooked_package"]
    importlib.import_module("hooked_package.inner")
    assert seen == ["hooked_package", "hooked_package.inner"]


def test_a_missing_module_stays_missing():
    """A hook of a module that is not installed changes nothing of the error."""
    when_imported("no_such_module_at_all", pytest.fail)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        importlib.import_module("no_such_module_at_all")


@pytest.mark.parametrize("first", ["ours", "wrapt"])
def test_hooks_of_wrapt_on_the_same_module_are_called_as_well(module, first):
    """Other instrumentations use wrapt's hooks: both kinds are called, in any order of registration."""
    seen = []
    registrations = [
        lambda: when_imported(module, lambda _: seen.append("ours")),
        lambda: wrapt.register_post_import_hook(lambda _: seen.append("wrapt"), module),
    ]
    for register in registrations if first == "ours" else reversed(registrations):
        register()
    assert importlib.import_module(module).double(2) == 4
    assert sorted(seen) == ["ours", "wrapt"]


def test_a_module_whose_import_fails_can_be_imported_later(module, tmp_path):
    """The hook waits for an import that succeeds."""
    path = tmp_path / f"{module}.py"
    path.write_text("raise RuntimeError('not yet')\n")
    seen = []
    when_imported(module, lambda found: seen.append(found.value))
    with pytest.raises(RuntimeError, match="not yet"):
        importlib.import_module(module)
    assert seen == []
    path.write_text(SOURCE + "\n# longer, so that no cached bytecode is used\n")
    importlib.invalidate_caches()
    importlib.import_module(module)
    assert seen == [1]


def test_threads_that_import_at_the_same_time_call_a_hook_once(module):
    """The import of several threads is one, and so is the call of the hook."""
    seen = []
    when_imported(module, seen.append)
    barrier = threading.Barrier(8)

    def import_it():
        barrier.wait(10)
        importlib.import_module(module)

    threads = [threading.Thread(target=import_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(seen) == 1
