"""Empty environments, and the package in them as a user would have it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Stands for pip in an environment that uv makes: the same words, with uv's speed and cache.
_PIP_BY_UV = """#!/bin/sh
for word; do
    shift
    [ "$word" = --no-cache-dir ] || set -- "$@" "$word"
done
exec {uv} pip "$@" --quiet --no-config --python {python}
"""
_PIP_MODULE = "import os, sys\nos.execv({pip!r}, [{pip!r}, *sys.argv[1:]])\n"


class Environment:
    """An empty virtual environment whose `pip`, `python` and commands are first on the path."""

    def __init__(self, folder):
        self.folder = folder
        self.bin = folder / "bin"
        self.python = self.bin / "python"
        if uv := _uv():
            _run([uv, "venv", "--quiet", "--no-config", "--python", sys.executable, folder])
            self._stand_in_for_pip(uv)
        else:
            _run([sys.executable, "-m", "venv", folder])

    @property
    def site_packages(self):
        return next(self.folder.glob("lib/python*/site-packages"))

    def _stand_in_for_pip(self, uv):
        pip = self.bin / "pip"
        pip.write_text(_PIP_BY_UV.format(uv=uv, python=self.python))
        pip.chmod(0o755)
        module = self.site_packages / "pip"
        module.mkdir()
        (module / "__main__.py").write_text(_PIP_MODULE.format(pip=str(pip)))

    def run(self, *words, cwd, check=True, **variables):
        """Run a command of the environment, away from the checkout and its variables."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "TRACER", "VIRTUAL_ENV"))
        }
        path = f"{self.bin}{os.pathsep}{kept['PATH']}"
        done = subprocess.run(
            [str(word) for word in words],
            cwd=cwd,
            env=kept | {"PATH": path, "VIRTUAL_ENV": str(self.folder)} | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done

    def versions(self):
        """Version of every installed package, by name."""
        code = (
            "import importlib.metadata as m\nfor d in m.distributions(): print(d.name, d.version)"
        )
        lines = self.run(self.python, "-c", code, cwd=self.folder).stdout.splitlines()
        return dict(line.split() for line in lines)


def _uv():
    beside = Path(__file__).parents[2] / ".uv" / "bin" / "uv"
    return shutil.which("uv") or (str(beside) if beside.exists() else None)


def _run(words):
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


@pytest.fixture(scope="session")
def make_environment(tmp_path_factory):
    """Makes empty environments; they are half a gigabyte when filled, so they do not stay."""
    made = []

    def make(name):
        made.append(tmp_path_factory.mktemp(name))
        return Environment(made[-1] / "env")

    yield make
    for folder in made:
        shutil.rmtree(folder)
