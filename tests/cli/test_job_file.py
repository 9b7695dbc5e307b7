"""Job files: what is accepted, what is refused, where paths point. Running one: tests/engine."""

import pytest
import yaml

from tracer.capture.manifest import CaptureRequest
from tracer.datasets.options import DatasetOptions
from tracer.errors import InputError
from tracer.workflow.job_file import CaptureOptions, load_job


def write(folder, text):
    path = folder / "job.yaml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_job_file(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "p.jsonl").write_text("")
    job = load_job(write(tmp_path, "{model: m, dataset: p.jsonl, audit: {output: out/a.json}}"))
    assert (job.model, job.dataset) == (str(tmp_path / "m"), str(tmp_path / "p.jsonl"))
    assert (job.lake, job.audit.output) == (str(tmp_path / "lake"), tmp_path / "out" / "a.json")
    assert job.report is None


def test_names_that_are_no_files_stay_names(tmp_path):
    job = load_job(write(tmp_path, "{model: org/name, dataset: mmlu}"))
    assert (job.model, job.dataset) == ("org/name", "mmlu")


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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: [", "not YAML"),
        ("", "the document"),
        ("model: m", "dataset: Field required"),
        ("{model: m, dataset: d, modle: x}", "modle: Extra inputs"),
        ("{model: m, dataset: d, options: {max_tokens: 0}}", "options.max_tokens"),
        ("{model: m, dataset: d, options: {samples: 0}}", "options.samples"),
        ("{model: m, dataset: d, options: {stop: END}}", "options.stop"),
        ("{model: m, dataset: d, audit: {mode: magic, output: x}}", "audit.mode"),
        ("{model: m, dataset: d, audit: {mode: gate}}", "audit.output: Field required"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
    ],
)
def test_wrong_job_files_are_refused(tmp_path, text, words):
    with pytest.raises(InputError, match=r"job\.yaml") as caught:
        load_job(write(tmp_path, text))
    assert words in str(caught.value)


def test_a_job_file_that_is_not_there(tracer):
    tracer("job", "run", "nowhere.yaml").failed(2, "nowhere.yaml")


def test_the_bundled_example_is_valid(repository):
    job = load_job(repository / "pipelines" / "demo.yaml")
    assert job.options.run_id == "demo"
    assert job.engine == ("--enforce-eager",)


def test_the_crontab_example_names_real_things(repository):
    """Five time fields, then a command on a job file and a program that make setup leaves."""
    lines = (repository / "pipelines" / "crontab").read_text().splitlines()
    (entry,) = [line for line in lines if line[:1].isdigit()]
    *times, command = entry.split(maxsplit=5)
    assert all(set(field) <= set("0123456789*/,-") for field in times)
    assert "tracer job run pipelines/demo.yaml" in command
    assert yaml.safe_load((repository / "pipelines" / "demo.yaml").read_text())["dataset"] == "demo"
