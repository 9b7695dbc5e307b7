"""Disks that are full, read-only or not ours: one error, a whole lake, and then it goes on.

Each runs in a mount or user namespace of its own (`unshare`), so that nothing outside is touched
and permissions hold for root, too.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

REQUESTS, TOKENS, LAYERS, TOP_K, EXPERTS = 300, 40, 4, 4, 64


@pytest.fixture
def files(tmp_path):
    """An import of 48,000 rows, about half a megabyte in the lake."""
    rng = np.random.default_rng(0)
    count = REQUESTS * TOKENS * LAYERS
    ids = np.argsort(rng.random((count, EXPERTS)), axis=1)[:, :TOP_K].astype(np.int16)
    weights = rng.random((count, TOP_K)).astype(np.float32)
    token = np.repeat(np.arange(REQUESTS * TOKENS), LAYERS)
    pq.write_table(
        pa.table(
            {
                "request_id": [f"q{n:04d}" for n in (token // TOKENS).tolist()],
                "position": (token % TOKENS).astype(np.int32),
                "token_id": (token % 1000).astype(np.int32),
                "layer_id": np.tile(np.arange(LAYERS, dtype=np.int16), REQUESTS * TOKENS),
                "expert_ids": list(ids),
                "gate_weights": list(weights),
            }
        ),
        tmp_path / "routing.parquet",
    )
    names = [f"q{n:04d}" for n in range(REQUESTS)]
    pq.write_table(
        pa.table(
            {"request_id": names, "domain": ["law"] * REQUESTS, "num_prompt_tokens": [9] * REQUESTS}
        ),
        tmp_path / "requests.parquet",
    )
    facts = {
        "model": "m",
        "num_experts": EXPERTS,
        "top_k": TOP_K,
        "moe_layers": list(range(LAYERS)),
    }
    (tmp_path / "run.json").write_text(json.dumps(facts))
    return tmp_path


def play(folder, unshare, script):
    """A shell script in its own namespace; `tracer`, `import_it` and `whole` are commands there."""
    tracer = f"{sys.executable} -m tracer"
    functions = (
        f'tracer() {{ {tracer} "$@"; }}\n'
        "import_it() { tracer import --routing routing.parquet --requests requests.parquet"
        " --run run.json --run-id r --lake lake; }\n"
        # Complete, and every file and row as it should be.
        "whole() { tracer verify --lake lake && tracer sql --lake lake --format csv"
        " 'select count(*) as n from routing' | grep -q '^48000$' && echo WHOLE; }\n"
    )
    done = subprocess.run(
        ["unshare", *unshare, "bash", "-c", functions + script],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.stdout, done.stderr


@pytest.mark.parametrize("size", ["100k", "400k", "560k"])
def test_a_full_disk_is_told_and_the_import_goes_on_with_more_room(files, size):
    """Full while the lake is made, in the middle of a shard, or at the commit."""
    out, err = play(
        files,
        ["--user", "--map-root-user", "--mount"],
        f"mkdir lake && mount -t tmpfs -o size={size} none lake\n"
        "import_it; echo EXIT $?\n"
        "mount -o remount,size=50m lake && import_it && whole\n",
    )
    assert "EXIT 2" in out, out + err
    assert "No space left" in err
    assert "Traceback" not in err
    assert out.endswith("WHOLE\n"), out + err


def test_a_folder_that_is_read_only_is_told_and_stays_readable(files):
    out, err = play(
        files,
        ["--user", "--map-root-user", "--mount"],
        "import_it >&2 && mount --bind lake lake && mount -o remount,bind,ro lake\n"
        'sed -i \'s/"m"/"other"/\' run.json\n'
        "tracer import --routing routing.parquet --requests requests.parquet --run run.json"
        " --run-id s --lake lake; echo EXIT $?\n"
        "whole\n",
    )
    assert "EXIT 2" in out, out + err
    assert "Read-only file system" in err
    assert "Traceback" not in err
    assert out.endswith("WHOLE\n"), out + err


def test_a_permission_that_was_lost_is_told(files):
    """No root in here: the mode of the folder counts."""
    out, err = play(
        files,
        ["--user"],
        "import_it >&2\n"
        "chmod 500 lake/routing lake/_tracer/locks\n"
        "tracer delete --run r --yes --lake lake; echo EXIT $?\n"
        "whole\n"
        "chmod 700 lake/routing lake/_tracer/locks\n",
    )
    assert "EXIT 2" in out, out + err
    assert "Permission denied" in err
    assert "WHOLE" in out, out + err
