"""Where a demo model may be written, and that nothing half is ever there."""

import subprocess
import sys

import pytest

from tracer.demo import write_demo_model
from tracer.errors import EngineMissingError, InputError


def test_refuses_a_foreign_folder(tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(InputError, match="not empty") as caught:
        write_demo_model(tmp_path)
    assert caught.value.hint
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_refuses_another_checkpoint(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(InputError, match="not empty"):
        write_demo_model(tmp_path)


def test_refuses_a_file(tmp_path):
    (tmp_path / "model").write_text("")
    with pytest.raises(InputError, match="is a file"):
        write_demo_model(tmp_path / "model")


def test_refuses_a_file_as_parent(tmp_path):
    (tmp_path / "model").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        write_demo_model(tmp_path / "model" / "demo")


def test_refuses_a_demo_model_with_files_of_others(tmp_path):
    folder = tmp_path / "demo"
    write_demo_model(folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="more than a demo model"):
        write_demo_model(folder)
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "fact"),
    [({"architecture": "gpt2"}, "gpt2"), ({"seed": -1}, "negative")],
)
def test_refuses_unknown_options(tmp_path, options, fact):
    with pytest.raises(InputError, match=fact) as caught:
        write_demo_model(tmp_path / "demo", **options)
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


def test_replaces_an_earlier_demo_model_and_leaves_nothing_beside_it(tmp_path):
    folder = tmp_path / "deep" / "demo"
    write_demo_model(folder)
    truth = write_demo_model(folder, architecture="qwen3_moe", seed=3)
    assert (truth.architecture, truth.seed) == ("qwen3_moe", 3)
    assert '"model_type": "qwen3_moe"' in (folder / "config.json").read_text()
    assert [entry.name for entry in folder.parent.iterdir()] == ["demo"]


def test_writes_into_an_empty_folder(tmp_path):
    write_demo_model(tmp_path)
    assert (tmp_path / "planted.json").is_file()


@pytest.mark.parametrize("library", ["tokenizers", "safetensors.numpy"])
def test_missing_libraries_are_named(tmp_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(EngineMissingError, match=library.split(".", maxsplit=1)[0]) as caught:
        write_demo_model(tmp_path / "demo")
    assert "make setup" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_importing_the_package_is_cheap():
    code = (
        "import sys, tracer.demo;"
        "print({'numpy', 'torch', 'tokenizers', 'safetensors', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
