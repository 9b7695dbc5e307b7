"""Files that say which labels form a domain."""

import pytest

from tracer.domain_map import load_domains
from tracer.errors import InputError


def write(tmp_path, text):
    path = tmp_path / "domains.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("head", ["", "[domains]\n", "\ufeff[domains]\n"])
def test_labels_map_to_their_domain_with_and_without_a_table(tmp_path, head):
    path = write(
        tmp_path, head + '"it\'s" = ["law", "a \\"b\\""]\nSTEM = ["physics"]\nempty = []\n'
    )
    assert load_domains(path) == {"law": "it's", 'a "b"': "it's", "physics": "STEM"}


def test_a_domain_may_be_called_domains(tmp_path):
    assert load_domains(write(tmp_path, 'domains = ["x"]')) == {"x": "domains"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a = ["x"]\nb = ["x"]', "'x' is listed twice, under 'a' and 'b'"),
        ('[domains]\na = ["x", "x"]', "'x' is listed twice, under 'a' and 'a'"),
        ('a = "x"', "'a' is no list of labels"),
        ("[domains]\na = [1]", "'a' is no list of labels"),
        ('a = ["x"]\n[domains]\nb = ["y"]', r"inside and outside of \[domains\]"),
        ('[other]\na = ["x"]', "'other' is no list of labels"),
        ('none = ["x"]', "cannot be named 'none'"),
        ("", "lists no labels"),
        ("[domains]", "lists no labels"),
        ("a = [", "is not TOML"),
        (b'a = ["\xff"]', "is not TOML"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load_domains(write(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot read the domain map .*: No such file"):
        load_domains(tmp_path / "none.toml")
