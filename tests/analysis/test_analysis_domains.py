"""Files that say which labels form a domain."""

import pytest

from tracer.analysis.domains import load_domains
from tracer.errors import InputError


def write(tmp_path, text):
    path = tmp_path / "domains.toml"
    path.write_text(text)
    return path


def test_labels_map_to_their_new_domain(tmp_path):
    path = write(tmp_path, '[domains]\n"it\'s" = ["law", "a \\"b\\""]\nSTEM = ["physics"]\n')
    assert load_domains(path) == {"law": "it's", 'a "b"': "it's", "physics": "STEM"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[domains", "is not TOML"),
        ("a = 1", "names no domains"),
        ("domains = 3", "names no domains"),
        ("[domains]", "names no domains"),
        ('[domains]\nx = "law"', "'x' is not a list of labels"),
        ("[domains]\nx = [1]", "'x' is not a list of labels"),
        ('[domains]\nx = ["law"]\ny = ["law"]', "'law' belongs to both 'x' and 'y'"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load_domains(write(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        load_domains(tmp_path / "none.toml")
