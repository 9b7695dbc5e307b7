"""The wheel, made by way of the source archive as a release is: whole, and of use elsewhere."""

import json
import subprocess
import sys
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tracer

# request, domain, and for each token the choices (expert, gate weight) in layers 1 and 3
TINY = {
    ("a", "law"): [
        {1: [(0, 0.75), (1, 0.25)], 3: [(2, 0.5), (3, 0.25)]},
        {1: [(0, 0.5), (2, 0.25)], 3: [(2, 0.5), (0, 0.25)]},
    ],
    ("b", "code"): [
        {1: [(0, 0.5), (3, 0.25)], 3: [(2, 0.75), (1, 0.25)]},
        {1: [(0, 0.5), (3, 0.25)], 3: [(2, 0.75), (1, 0.25)]},
    ],
}
RUN = {"model": "tiny", "num_experts": 4, "top_k": 2, "moe_layers": [1, 3]}


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory):
    target = tmp_path_factory.mktemp("dist")
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", target, repository]
    subprocess.run(words, check=True, capture_output=True)
    (path,) = target.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel):
    """Text of a file in the wheel's .dist-info folder, by name."""

    def read(name):
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(f"moe_tracer-{tracer.__version__}.dist-info/{name}").decode()

    return read


@pytest.fixture(scope="module")
def installed(wheel, make_environment):
    environment = make_environment("wheel")
    environment.run("pip", "install", wheel, cwd=wheel.parent)
    return environment


@pytest.fixture(scope="module")
def lake(installed, tmp_path_factory):
    """A folder outside the checkout with a lake of two requests, imported by the wheel."""
    folder = tmp_path_factory.mktemp("tiny")
    rows = [
        {
            "request_id": request_id,
            "position": position,
            "token_id": 100 + position,
            "layer_id": layer_id,
            "expert_ids": [expert for expert, _ in choices],
            "gate_weights": [weight for _, weight in choices],
        }
        for (request_id, _), tokens in TINY.items()
        for position, layers in enumerate(tokens)
        for layer_id, choices in layers.items()
    ]
    requests = [
        {"request_id": request_id, "domain": domain, "num_prompt_tokens": len(tokens)}
        for (request_id, domain), tokens in TINY.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "routing.parquet")
    pq.write_table(pa.Table.from_pylist(requests), folder / "requests.parquet")
    (folder / "run.json").write_text(json.dumps(RUN))
    words = "tracer import --routing routing.parquet --requests requests.parquet --run run.json"
    done = installed.run(*words.split(), "--run-id", "tiny", "--format", "json", cwd=folder)
    assert json.loads(done.stdout) == {"run_id": "tiny", "num_requests": 2, "num_rows": 8}
    return folder


def test_the_wheel_holds_the_package_its_queries_and_schemas_and_nothing_else(names, repository):
    expected = set()
    for folder, inside in {
        "tracer": "tracer",
        "queries": "tracer/_queries",
        "schemas": "tracer/_schemas",
    }.items():
        files = (path for path in (repository / folder).rglob("*") if path.is_file())
        expected |= {
            f"{inside}/{path.relative_to(repository / folder).as_posix()}"
            for path in files
            if "__pycache__" not in path.parts
        }
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == expected


@pytest.mark.parametrize(
    "name",
    [
        "tracer/_queries/eci.sql",
        "tracer/_queries/audit/ranks.sql",
        "tracer/_queries/parts/domain_eci.sql",
        "tracer/_queries/views/choices.sql",
        "tracer/_schemas/routing.toml",
        "tracer/datasets/mmlu_domains.toml",
        "tracer/datasets/prompts/demo.jsonl",
        "tracer/report/page/grid.js",
        "tracer/report/page/report.css",
        "tracer/report/page/report.html.j2",
        "tracer/report/page/report.js",
    ],
)
def test_the_wheel_holds_what_is_not_python(names, name):
    assert name in names


def test_the_wheel_announces_the_command_and_the_vllm_plugin(metadata):
    entries = metadata("entry_points.txt").splitlines()
    assert {"tracer = tracer.cli:main", "moe_tracer = tracer.capture.plugin:register"} <= set(
        entries
    )


def test_a_plain_install_asks_for_no_engine(metadata):
    lines = metadata("METADATA").splitlines()
    needs = [line for line in lines if line.startswith("Requires-Dist: ")]
    plain = {line.split()[1] for line in needs if "extra ==" not in line}
    assert not any(need.startswith(("vllm", "torch", "datasets")) for need in plain)
    assert any(need.startswith("duckdb") for need in plain)


def test_the_installed_package_is_the_wheels(installed, tmp_path):
    code = "import tracer; print(tracer.__version__, tracer.__file__)"
    version, file = installed.run("python", "-c", code, cwd=tmp_path).stdout.split()
    assert version == tracer.__version__
    assert file == str(installed.site_packages / "tracer" / "__init__.py")


def test_the_installed_package_audits(installed, lake):
    """By hand: expert 0 leads layer 1 in both domains, expert 2 layer 3."""
    done = installed.run("tracer", "audit", "--format", "json", cwd=lake)
    layers = json.loads(done.stdout)
    assert [(layer["layer_id"], layer["committee"]) for layer in layers] == [(1, [0]), (3, [2])]
    # layer 1: mean of 0.625 (law) and 0.5 (code); layer 3: of 0.5 and 0.75
    means = [layer["members"][0]["contribution_mean"] for layer in layers]
    assert means == [0.5625, 0.625]
    # over the two listed experts of each domain
    assert layers[0]["coverage"] == pytest.approx((0.625 + 0.5) / (0.75 + 0.75))
    assert layers[1]["coverage"] == pytest.approx((0.5 + 0.75) / (0.625 + 1.0))


def test_the_installed_package_answers_sql(installed, lake):
    query = "select layer_id, expert_id, count(*) as n, sum(gate_weight) as w from choices"
    words = ("tracer", "sql", f"{query} group by all order by all", "--format", "csv")
    lines = installed.run(*words, cwd=lake).stdout.splitlines()
    assert lines[0] == "layer_id,expert_id,n,w"
    assert lines[1:5] == ["1,0,4,2.25", "1,1,1,0.25", "1,2,1,0.25", "1,3,2,0.5"]
    assert lines[5:] == ["3,0,1,0.25", "3,1,2,0.5", "3,2,4,2.5", "3,3,1,0.25"]


def test_the_installed_package_opens_a_lake_in_python(installed, lake):
    code = "import tracer; print(tracer.open_lake('lake').scan('routing').collect().height)"
    assert installed.run("python", "-c", code, cwd=lake).stdout.strip() == "8"


def test_the_installed_package_writes_a_report(installed, lake):
    installed.run("tracer", "report", "--output", "out.html", cwd=lake)
    text = (lake / "out.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert "tiny" in text
    assert "<style>" in text
    assert "<script" in text
