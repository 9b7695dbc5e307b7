"""What a configuration of live capture may say, and where it is read from."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracer.errors import InputError
from tracer.live.config import LiveConfig, load_config


def write(folder, text, name="live.yaml"):
    path = folder / name
    path.write_text(text)
    return str(path)


def test_nothing_in_the_environment_is_no_capture():
    assert load_config({}) is None
    assert load_config({"TRACER_LIVE": "", "TRACER_LAKE": "x", "TRACER_LIVE_RATE": ""}) is None


def test_a_file_and_variables_that_win_over_it(tmp_path):
    file = write(tmp_path, "{lake: lake, rate: 0.5, labels: [tenant], opt: in, run_hours: 6}")
    config = load_config({"TRACER_LIVE": file, "TRACER_LIVE_RATE": "0.25"})
    assert (config.rate, config.opt, config.run_hours) == (0.25, "in", 6)
    assert config.labels == ("tenant",)
    assert config.lake == str(tmp_path / "lake")
    assert config.control_folder == tmp_path / "lake" / "_tracer" / "live" / "live"


def test_json_is_a_file_too(tmp_path):
    file = write(tmp_path, json.dumps({"lake": "/l", "disk_gb": 2.5}), "live.json")
    assert load_config({"TRACER_LIVE": file}).disk_gb == 2.5


def test_variables_alone(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = load_config(
        {
            "TRACER_LIVE_LAKE": "here",
            "TRACER_LIVE_NAME": "12",
            "TRACER_LIVE_LABELS": "[tenant, user]",
            "TRACER_LIVE_LABEL_RATES": "{tenant: {acme: 1}, domain: {maths: 0}}",
            "TRACER_LIVE_TEXT": "true",
            "TRACER_LIVE_RECORDING": "false",
        }
    )
    assert (config.lake, config.name) == (str(tmp_path / "here"), "12")
    assert config.labels == ("tenant", "user")
    assert config.label_rates == {"tenant": {"acme": 1.0}, "domain": {"maths": 0.0}}
    assert (config.text, config.recording) == (True, False)


def test_defaults_keep_no_label_and_no_text():
    config = LiveConfig(lake="l")
    assert (config.text, config.labels, config.hash_labels) == (False, (), ())
    assert (config.rate, config.opt, config.recording) == (1.0, "out", True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lake: [", "is not YAML"),
        ("- lake", "holds no keys"),
        ("{1: 2}", "holds no keys"),
        ("rate: 1", "lake: Field required"),
        ("{lake: l, rates: 1}", "rates: Extra inputs"),
        ("{lake: l, rate: 1.5}", "rate: Input should be less than or equal to 1"),
        ("{lake: l, rate: .nan}", "rate: "),
        ("{lake: l, opt: maybe}", "opt: Input should be 'all', 'in' or 'out'"),
        ("{lake: l, name: ../x}", "name: String should match"),
        ("{lake: l, name: .hidden}", "name: String should match"),
        ("{lake: l, labels: [Tenant]}", "labels.0: String should match"),
        ('{lake: l, labels: ["a\\n"]}', "labels.0: String should match"),
        ("{lake: l, labels: ['a/b']}", "labels.0: String should match"),
        ("{lake: l, labels: [domain]}", "the domain is always kept"),
        ("{lake: l, label_rates: {tenant: {a: 2}}}", "label_rates.tenant: "),
        ("{lake: l, hash_labels: [tenant]}", "'tenant' is not among the labels"),
        ("{lake: l, labels: [t], hash_labels: [t]}", "without a key"),
        ("{lake: l, hash_key_file: nowhere}", "cannot read hash_key_file"),
        ("{lake: l, hash_key_file: short}", "5 bytes, fewer than 16"),
        ("{lake: 's3://bucket/lake'}", "needs a local folder"),
        ("{lake: l, queue_mb: 0}", "queue_mb: "),
        ("{lake: l, run_hours: 0}", "run_hours: "),
        ("&a [*a]", "holds no keys"),
    ],
)
def test_one_error_names_the_key(tmp_path, text, words):
    (tmp_path / "short").write_text("12345\n")
    with pytest.raises(InputError) as error:
        load_config({"TRACER_LIVE": write(tmp_path, text)})
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"TRACER_LIVE": "/nowhere/live.yaml"}, "cannot read /nowhere/live.yaml"),
        ({"TRACER_LIVE_RATE": "1"}, "lake: Field required"),
        ({"TRACER_LIVE_LAKE": "l", "TRACER_LIVE_RTAE": "1"}, "TRACER_LIVE_RTAE is no setting"),
        ({"TRACER_LIVE_LAKE": "l", "TRACER_LIVE_RATE": "much"}, "TRACER_LIVE_RATE: "),
        ({"TRACER_LIVE_LAKE": "l", "TRACER_LIVE_LABELS": "["}, "TRACER_LIVE_LABELS is not YAML"),
    ],
)
def test_a_variable_that_is_wrong_is_named(environ, words):
    with pytest.raises(InputError) as error:
        load_config(environ)
    assert words in str(error.value)


def test_what_may_stand_in_a_lake_names_no_path_and_nothing_hashed(tmp_path):
    (tmp_path / "key").write_bytes(b"0123456789abcdef\n")
    config = load_config(
        {
            "TRACER_LIVE": write(
                tmp_path,
                "{lake: l, labels: [tenant, team], hash_labels: [tenant, domain],"
                " hash_key_file: key, domains: [secret-domain],"
                " label_rates: {tenant: {secret-name: 1}, team: {red: 0.5}}}",
            )
        }
    )
    shown = json.dumps(config.public())
    assert config.public()["label_rates"] == {"team": {"red": 0.5}}
    assert not any(word in shown for word in ("secret", str(tmp_path), "0123456789abcdef", "lake"))


def test_a_bucket_with_a_control_folder(tmp_path):
    file = write(tmp_path, "{lake: 's3://b/l', control: state}")
    config = load_config({"TRACER_LIVE": file})
    assert config.lake == "s3://b/l"
    assert config.control_folder == Path(tmp_path / "state")


def test_the_example_and_the_table_of_settings(repository):
    config = load_config({"TRACER_LIVE": str(repository / "pipelines" / "live.yaml")})
    assert (config.name, config.rate, config.label_rates) == (
        "server-1",
        0.01,
        {"domain": {"maths": 1.0}},
    )
    page = (repository / "docs" / "serving.md").read_text()
    table = page.partition("## Settings")[2].partition("\n## ")[0]
    assert [key for key in LiveConfig.model_fields if f"`{key}`" not in table] == []


@pytest.mark.engine
def test_a_server_with_settings_that_cannot_be_used_does_not_start(repository):
    """vLLM lets what a plugin raises end the process."""
    done = subprocess.run(
        [sys.executable, "-c", "from vllm.plugins import load_general_plugins as f; f()"],
        cwd=repository,
        env={**os.environ, "TRACER_LIVE_LAKE": "lake", "TRACER_LIVE_RATE": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("tracer.errors.InputError: TRACER_LIVE_RATE: Input should be less than")


def test_values_of_label_rates_are_composed_and_stand_in_no_error(tmp_path):
    """A value of a request is composed, too; one that is hashed there must not stand in a log."""
    file = write(tmp_path, 'lake: x\nlabel_rates: {user: {"Rene\u0301": 1}}')
    assert load_config({"TRACER_LIVE": file}).label_rates == {"user": {"Ren\u00e9": 1}}
    file = write(tmp_path, "{lake: x, label_rates: {user: {alice: 2}}}")
    with pytest.raises(InputError) as error:
        load_config({"TRACER_LIVE": file})
    assert "label_rates.user" in str(error.value)
    assert "alice" not in str(error.value)
