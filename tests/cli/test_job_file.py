"""Job files: what is accepted, what is refused, where paths point. Running one: tests/engine."""

import json
import runpy

import jsonschema
import pytest
import yaml

from tracer.capture.manifest import CaptureRequest
from tracer.datasets.options import DatasetOptions
from tracer.errors import InputError
from tracer.workflow.job_combination import combinations
from tracer.workflow.job_file import CaptureOptions, DatasetEntry
from tracer.workflow.job_load import load_job


def write(folder, text):
    path = folder / "job.yaml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_job_file(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "p.jsonl").write_text("")
    job = load_job(write(tmp_path, "{model: m, dataset: p.jsonl, audit: {output: out/a.json}}"))
    (combination,) = combinations(job)
    assert combination.request.model == str(tmp_path / "m")
    assert combination.source == str(tmp_path / "p.jsonl")
    assert (combination.title, job.name) == ("m/p", "job")
    (audit,) = job.audit_steps
    assert (job.lake, audit.output) == (str(tmp_path / "lake"), tmp_path / "out" / "a.json")
    assert job.report is None


def test_names_that_are_no_files_stay_names(tmp_path):
    (combination,) = combinations(load_job(write(tmp_path, "{model: org/name, dataset: mmlu}")))
    assert (combination.request.model, combination.source) == ("org/name", "mmlu")
    assert combination.title == "name/mmlu"


def test_every_model_meets_every_dataset_with_what_each_alone_needs(tmp_path):
    text = """
    models: [a, {model: b, name: big, engine: [--tensor-parallel-size, "2"], lora: adapter}]
    datasets: [demo, {dataset: mmlu, limit: 5, split: dev}]
    options: {limit: 9}
    engine: [--enforce-eager]
    report: {output: "{model}/{dataset}.html"}
    """
    job = load_job(write(tmp_path, text))
    found = combinations(job)
    assert [(one.number, one.title) for one in found] == [
        (1, "a/demo"), (2, "a/mmlu"), (3, "big/demo"), (4, "big/mmlu")
    ]  # fmt: skip
    assert [one.dataset_options.limit for one in found] == [9, 5, 9, 5]
    assert [one.dataset_options.split for one in found] == [None, "dev", None, "dev"]
    assert found[0].request.engine_options == ("--enforce-eager",)
    assert found[3].request.engine_options == ("--enforce-eager", "--tensor-parallel-size", "2")
    assert [one.request.lora for one in found] == [None, None, *[tmp_path / "adapter"] * 2]
    assert found[3].output(job.report.output, "r") == tmp_path / "big" / "mmlu.html"


def test_options_of_a_capture_stand_under_their_names(tmp_path):
    job = load_job(
        write(
            tmp_path,
            "{model: m, dataset: d, options: {samples: 4, temperature: 0.8, stop: ['.', END],"
            " top_m: 12, router_logits: true, router_weights: true, capture_field: keep,"
            " lora: adapter, allow_unproved_layout: true}}",
        )
    )
    options = job.options
    assert (options.samples, options.temperature, options.stop) == (4, 0.8, (".", "END"))
    assert (options.top_m, options.router_logits, options.router_weights) == (12, True, True)
    assert (options.capture_field, options.lora) == ("keep", tmp_path / "adapter")
    assert options.allow_unproved_layout


def test_job_files_know_every_option_of_a_capture():
    """All fields of a capture's request and dataset but those with a key of their own."""
    known = set(CaptureOptions.model_fields)
    fields = {*CaptureRequest.__dataclass_fields__, *DatasetOptions.__dataclass_fields__}
    assert known == fields - {"model", "engine_options"}
    of_dataset = set(DatasetOptions.__dataclass_fields__)
    assert set(DatasetEntry.model_fields) == of_dataset | {"dataset", "name"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: [", "not YAML"),
        ("", "the document"),
        ("model: m", "a job has `dataset` or `datasets`"),
        ("{model: m, models: [n], dataset: d}", "a job has `model` or `models`"),
        ("{model: m, dataset: d, audit: {output: a}, audits: [{output: b}]}", "not both"),
        ("{models: [a/m, b/m], dataset: d}", "two have the name 'm'"),
        ("{models: [m, n], dataset: d, report: {output: r.html}}", "several runs"),
        ("{models: [m, n], dataset: d, options: {run_id: r}}", "several runs"),
        ("{model: m, dataset: d, every: day, options: {run_id: r}}", "several runs"),
        ("{model: m, dataset: d, options: {run_id: '{period}'}}", "{period} needs `every`"),
        ("{model: m, dataset: d, report: {output: '{night}'}}", "nothing is known of {night}"),
        ("{model: m, dataset: d, report: {output: '{model'}}", "report.output: "),
        ("{model: m, dataset: d, audit: {output: r}, report: {output: r}}", "the same file"),
        ("{model: m, dataset: d, every: night}", "every"),
        ("{model: m, dataset: d, drift: {limits: {}}}", "drift.limits"),
        ("{model: m, dataset: d, drift: {draws: 9}}", "at least 99 can"),
        ("{model: m, dataset: d, drift: {draws: 9, alpha: 0.03}}", "at least 33 can"),
        ("{model: m, dataset: d, drift: {limits: {nothing.x: 1}}}", "no measure 'nothing'"),
        ("{model: m, dataset: d, drift: {limits: {eci.eci: 1}}}", "is of one run"),
        ("{model: m, dataset: d, drift: {limits: {usage_drift.x: 1}}}", "no column 'x'"),
        (
            "{model: m, dataset: d, drift: {limits: {usage_drift.divergence: {}}}}",
            "divergence: a limit has `min`",
        ),
        ("{models: [{model: m, nam: n}], dataset: d}", "models.0.nam: Extra inputs"),
        ("{models: [3], dataset: d}", "models.0: Input should be a valid string"),
        ("{model: m, dataset: d, retention: {runs: 0}}", "retention.runs"),
        ("{model: m, dataset: d, modle: x}", "modle: Extra inputs"),
        ("{model: m, dataset: d, options: {max_tokens: 0}}", "options.max_tokens"),
        ("{model: m, dataset: d, options: {samples: 0}}", "options.samples"),
        ("{model: m, dataset: d, options: {stop: END}}", "options.stop"),
        ("{model: m, dataset: d, audit: {mode: magic, output: x}}", "audit.mode"),
        ("{model: m, dataset: d, audit: {mode: gate}}", "audit.output: Field required"),
        (
            "{models: [a-b, a], datasets: [c, b-c], report: {output: '{model}-{dataset}'}}",
            "two runs",
        ),
        ("model: m\ndataset: d\nmodel: n", "the key 'model' is there twice"),
        ("{model: m, dataset: d, report: {draws: 1, draws: 2}}", "the key 'draws' is there twice"),
        ("{model: m, dataset: 2026-02-30}", "not YAML: day is out of range"),
        ("[" * 5000, "not YAML"),
        ("{model: m, dataset: d, verify: {max_dropped: .nan}}", "verify.max_dropped"),
        ("{model: m, dataset: d, drift: {alpha: .nan}}", "drift.alpha"),
        ("{model: m, dataset: d, drift: {limits: {usage_drift.divergence: .inf}}}", "divergence"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
    ],
)
def test_wrong_job_files_are_refused(tmp_path, text, words):
    with pytest.raises(InputError, match=r"job\.yaml") as caught:
        load_job(write(tmp_path, text))
    assert words in str(caught.value)


def test_a_merged_key_may_be_given_anew(tmp_path):
    text = """
    model: m
    datasets:
    - &all {dataset: a, limit: 5}
    - &few {<<: *all, dataset: b, limit: 2}
    - {<<: *few, dataset: c}
    """
    job = load_job(write(tmp_path, text))
    assert [(d.dataset, d.limit) for d in job.datasets] == [("a", 5), ("b", 2), ("c", 2)]


def test_a_job_file_that_is_not_there(tracer):
    tracer("job", "run", "nowhere.yaml").failed(2, "nowhere.yaml")


def job_examples(repository):
    """Every YAML file of the examples that names datasets; others are not of jobs."""
    paths = sorted((repository / "pipelines").glob("*.yaml"))
    return [p for p in paths if {"dataset", "datasets"} & yaml.safe_load(p.read_text()).keys()]


def test_the_bundled_example_is_valid(repository):
    job = load_job(repository / "pipelines" / "demo.yaml")
    assert job.options.run_id == "demo"
    assert job.engine == ("--enforce-eager",)


def test_the_schema_of_job_files_is_current(repository, tracer):
    """`make docs` would change nothing, and the command prints the same."""
    namespace = runpy.run_path(str(repository / "docs" / "write_job_schema.py"))
    text = (repository / "schemas" / "job.schema.json").read_text()
    assert namespace["schema_text"]() == text
    assert json.loads(tracer("job", "schema").stdout) == json.loads(text)


def test_the_schema_takes_the_examples_and_refuses_what_a_job_does(repository):
    schema = json.loads((repository / "schemas" / "job.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    checker = jsonschema.Draft202012Validator(schema)
    paths = job_examples(repository)
    assert {path.name for path in paths} >= {"demo.yaml", "nightly.yaml"}
    for path in paths:
        text = path.read_text()
        assert list(checker.iter_errors(yaml.safe_load(text))) == []
        assert "# yaml-language-server: $schema=../schemas/job.schema.json" in text
        load_job(path)
    for wrong in (
        {"model": "m", "dataset": "d", "modle": "x"},
        {"model": "m", "dataset": "d", "options": {"max_tokens": 0}},
        {"model": "m", "dataset": "d", "every": "night"},
        {"model": "m", "dataset": "d", "drift": {"limits": {"usage_drift": 1}}},
        {"model": ["m"], "dataset": "d"},
    ):
        assert list(checker.iter_errors(wrong)) != []


def test_every_key_of_a_job_is_in_the_readme(repository):
    schema = json.loads((repository / "schemas" / "job.schema.json").read_text())
    text = (repository / "pipelines" / "README.md").read_text()
    assert [key for key in schema["properties"] if f"`{key}`" not in text] == []


def test_the_crontab_example_names_real_things(repository):
    """Five time fields, then a command on a job file and a program that make setup leaves."""
    lines = (repository / "pipelines" / "crontab").read_text().splitlines()
    (entry,) = [line for line in lines if line[:1].isdigit()]
    *times, command = entry.split(maxsplit=5)
    assert all(set(field) <= set("0123456789*/,-") for field in times)
    assert "tracer job run pipelines/nightly.yaml" in command
    job = load_job(repository / "pipelines" / "nightly.yaml")
    assert (job.name, job.every) == ("nightly", "day")
