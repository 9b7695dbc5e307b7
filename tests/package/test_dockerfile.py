"""The Dockerfile, without an engine to build it: its own lines are run in empty environments.

Checked: sources of COPY, install lines, entry point, and what each image must not contain or
change. Not checked: the base images themselves.
"""

import fnmatch
import json
import re
import shutil
from pathlib import PurePosixPath

import pytest

from tracer.capture.engine_setup import _TESTED

LEFT_OUT = (".git/HEAD", ".venv/bin/python", "lake/runs/a.parquet", "demo-model/config.json")


class Stage:
    """One stage of a Dockerfile: its base image and (instruction, arguments) in order."""

    def __init__(self, base):
        self.base = base
        self.steps = []

    def all(self, instruction):
        return [rest for name, rest in self.steps if name == instruction]

    def last(self, instruction):
        return self.all(instruction)[-1]

    def copies(self):
        """(source, destination) of every COPY."""
        pairs = []
        for rest in self.all("COPY"):
            assert not rest.startswith("--"), f"this reader knows no options of COPY: {rest}"
            *sources, destination = rest.split()
            pairs += [(source, destination) for source in sources]
        return pairs

    def installs(self):
        return [rest for rest in self.all("RUN") if " install " in rest]


def read_stages(text):
    """Stages by name; comment lines go first, as they may stand inside a continued line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    stages = {}
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        instruction, _, rest = line.strip().partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            stages[name] = Stage(base)
        elif instruction:
            stages[name].steps.append((instruction, rest.strip()))
    return stages


def is_ignored(path, patterns):
    """Whether .dockerignore keeps `path` out: the last pattern that fits it or a parent."""
    pure = PurePosixPath(path)
    candidates = [str(pure), *(str(parent) for parent in pure.parents)]
    ignored = False
    for pattern in patterns:
        forms = {pattern.removeprefix("!"), pattern.removeprefix("!").removeprefix("**/")}
        if any(fnmatch.fnmatch(c, form) for c in candidates for form in forms):
            ignored = not pattern.startswith("!")
    return ignored


@pytest.fixture(scope="module")
def stages(repository):
    return read_stages((repository / "Dockerfile").read_text())


@pytest.fixture(scope="module")
def ignore_patterns(repository):
    lines = (repository / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def copy_context(stage, repository, target):
    """The working folder of the stage's install line: exactly the files COPY brings."""
    target.mkdir()
    for source, destination in stage.copies():
        place = target / destination
        if (repository / source).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(repository / source, place, ignore=ignore, dirs_exist_ok=True)
        else:
            shutil.copy(repository / source, place)
    return target


@pytest.fixture(scope="module")
def slim(stages, repository, make_environment, tmp_path_factory):
    """An empty environment in which the install lines of the slim stage have run."""
    source = tmp_path_factory.mktemp("slim") / "src"
    copy_context(stages["slim"], repository, source)
    environment = make_environment("slim")
    for line in stages["slim"].installs():
        environment.run("/bin/sh", "-c", line, cwd=source)
    return environment


def test_the_slim_image_is_what_a_plain_build_makes(stages):
    assert list(stages) == ["capture", "slim"]


@pytest.mark.parametrize("name", ["slim", "capture"])
def test_every_copied_file_is_there_and_reaches_the_build(
    stages, repository, ignore_patterns, name
):
    sources = [source for source, _ in stages[name].copies()]
    assert sources
    for source in sources:
        assert (repository / source).exists()
        assert not is_ignored(source, ignore_patterns)


def test_lakes_environments_and_history_stay_out(ignore_patterns):
    for path in LEFT_OUT:
        assert is_ignored(path, ignore_patterns), path


@pytest.mark.parametrize("name", ["slim", "capture"])
def test_both_images_start_the_command_in_the_data_folder(stages, name):
    stage = stages[name]
    assert json.loads(stage.last("ENTRYPOINT")) == ["tracer"]
    assert json.loads(stage.last("CMD")) == ["--help"]
    assert stage.last("WORKDIR") == "/data"
    assert stage.last("ENV") == "TRACER_LAKE=/data/lake"


def test_the_slim_image_does_not_run_as_root(stages):
    assert stages["slim"].last("USER") not in {"root", "0"}


def test_the_slim_base_is_a_python_the_package_supports(stages, slim):
    image, version = stages["slim"].base.split(":")
    assert (image, version) == ("python", "3.11-slim")
    assert "moe-tracer" in slim.versions()


def test_the_slim_image_starts_with_help(stages, slim, tmp_path):
    stage = stages["slim"]
    words = json.loads(stage.last("ENTRYPOINT")) + json.loads(stage.last("CMD"))
    done = slim.run(*words, cwd=tmp_path)
    assert done.stdout.startswith("Usage: tracer")


def test_the_slim_image_has_no_engine(slim, tmp_path):
    code = "import importlib.util as u; print([u.find_spec(n) for n in ('torch', 'vllm')])"
    assert slim.run("python", "-c", code, cwd=tmp_path).stdout.strip() == "[None, None]"


@pytest.mark.parametrize("words", [("sql", "select 1"), ("runs",), ("audit",), ("report",)])
def test_a_missing_lake_is_one_error_line(slim, tmp_path, words):
    lake = tmp_path / "lake"
    done = slim.run("tracer", *words, cwd=tmp_path, check=False, TRACER_LAKE=str(lake))
    errors = [line for line in done.stderr.splitlines() if not line.startswith("Hint: ")]
    assert (done.returncode, done.stdout) == (2, "")
    assert errors == [f"Error: {lake} is not a trace lake"]
    assert list(tmp_path.iterdir()) == []


def test_capture_without_an_engine_says_what_is_missing(slim, tmp_path):
    words = ("tracer", "capture", "--model", "x", "--dataset", "demo")
    done = slim.run(*words, cwd=tmp_path, check=False)
    *_, error, hint = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (4, "")
    assert error == "Error: vLLM is not installed"
    assert hint.startswith("Hint: ")
    assert list(tmp_path.iterdir()) == []


def test_the_demo_model_needs_the_engines_libraries(slim, tmp_path):
    done = slim.run("tracer", "demo-model", "demo-model", cwd=tmp_path, check=False)
    error, hint = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (4, "")
    assert error == "Error: the library 'tokenizers' is not installed"
    assert hint.startswith("Hint: ")
    assert list(tmp_path.iterdir()) == []


def test_the_capture_image_has_a_tested_engine(stages):
    image, version = stages["capture"].base.split(":v")
    low, high = _TESTED["vllm"]
    assert image == "vllm/vllm-openai"
    assert low <= tuple(int(part) for part in version.split("."))[:2] <= high


@pytest.fixture
def install_on_engine(stages, repository, make_environment, tmp_path):
    """Runs the capture stage's install line where an engine of the given versions seems to be."""

    def install(engine):
        environment = make_environment("capture")
        for name, version in engine.items():
            info = environment.site_packages / f"{name}-{version}.dist-info"
            info.mkdir()
            facts = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            (info / "METADATA").write_text(facts)
            (info / "RECORD").write_text("")
        source = copy_context(stages["capture"], repository, tmp_path / "src")
        (line,) = stages["capture"].installs()
        line = line.replace("/tmp/", f"{tmp_path}/")  # noqa: S108 - the image's own
        done = environment.run("/bin/sh", "-c", line, cwd=source, check=False)
        return done, environment.versions()

    return install


def test_the_capture_image_keeps_its_engine(install_on_engine):
    """The versions are ones that no index has, so they cannot have been fetched."""
    engine = {"vllm": "0.32.0+image", "torch": "2.13.0+image", "numpy": "2.2.6+image"}
    done, installed = install_on_engine(engine)
    assert done.returncode == 0, done.stderr
    assert {name: installed[name] for name in engine} == engine
    assert {"moe-tracer", "deltalake", "duckdb", "polars"} <= set(installed)


def test_the_capture_image_is_not_built_on_an_engine_it_would_have_to_change(install_on_engine):
    """Our numpy is at least 2.0: what the engine was built with is not replaced for it."""
    engine = {"vllm": "0.32.0+image", "torch": "2.13.0+image", "numpy": "1.26.4+image"}
    done, installed = install_on_engine(engine)
    assert done.returncode != 0
    assert "numpy" in done.stdout + done.stderr
    assert {name: installed[name] for name in engine} == engine
    assert "moe-tracer" not in installed
