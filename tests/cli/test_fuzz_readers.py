"""Files from strangers, broken at random: one error or a right answer, never a fault of ours.

`tests/fixtures/corpus` keeps inputs that once led to a traceback or to a wrong answer; put more
there as they are found, named <what>-<number>.<ending>.
"""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer.cli import run

CORPUS = Path(__file__).parents[1] / "fixtures" / "corpus"
FUZZ = settings(
    max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
# 0 read it, 1 verify found it, 2 and 3 said what is wrong; 70 would be a traceback.
TOLD = {0, 1, 2, 3}


@st.composite
def damage(draw):
    """A function of bytes: some overwritten, cut out or doubled, or the end cut off."""
    places = draw(st.lists(st.floats(0, 1), min_size=1, max_size=8))
    values = draw(st.binary(min_size=1, max_size=16))
    kind = draw(st.sampled_from(["overwrite", "remove", "double", "truncate"]))

    def apply(data):
        data = bytearray(data)
        for place in places:
            at = int(place * len(data))
            match kind:
                case "overwrite":
                    data[at : at + len(values)] = values
                case "remove":
                    del data[at : at + len(values)]
                case "double":
                    data[at:at] = data[at : at + len(values)]
                case _:
                    del data[at:]
        return bytes(data)

    return apply


@pytest.fixture
def files(interchange, tmp_path):
    """The three files of an import, whole."""
    interchange("sound")
    return tmp_path / "sound"


def import_from(folder, lake):
    words = [f"--{name}={folder / file}" for name, file in (
        ("routing", "routing.parquet"), ("requests", "requests.parquet"), ("run", "run.json"),
    )]  # fmt: skip
    return run(["import", *words, "--run-id", "r", "--lake", str(lake)])


@pytest.mark.parametrize("name", ["routing.parquet", "requests.parquet", "run.json"])
def test_a_broken_import_is_told_and_leaves_no_half_run(files, tmp_path, name, capfd):
    broken, lake = tmp_path / "broken", tmp_path / "lake"

    @FUZZ
    @given(damage())
    def check(harm):
        shutil.rmtree(broken, ignore_errors=True)
        shutil.rmtree(lake, ignore_errors=True)
        shutil.copytree(files, broken)
        (broken / name).write_bytes(harm((files / name).read_bytes()))
        code = import_from(broken, lake)
        assert code in TOLD, capfd.readouterr().err
        if code and (lake / "runs" / "_delta_log").is_dir():
            assert run(["verify", "--lake", str(lake)]) == 0
        capfd.readouterr()

    check()


@pytest.mark.parametrize("table", ["routing", "requests", "usage_by_domain", "runs"])
def test_a_lake_with_a_broken_file_is_told(files, tmp_path, table, capfd):
    """By verify always; sql and audit read what they can or say what they cannot."""
    sound, lake = tmp_path / "lake", tmp_path / "broken-lake"
    assert import_from(files, sound) == 0

    @FUZZ
    @given(damage(), st.integers(0, 3))
    def check(harm, which):
        shutil.rmtree(lake, ignore_errors=True)
        shutil.copytree(sound, lake)
        paths = sorted([*lake.glob(f"{table}/**/*.parquet"), *lake.glob(f"{table}/**/*.json")])
        path = paths[which % len(paths)]
        before = path.read_bytes()
        path.write_bytes(harm(before))
        code = run(["verify", "--lake", str(lake)])
        assert code in TOLD, capfd.readouterr().err
        live = path.parent.name == "r"  # a file of `routing` and so on that the run committed
        assert code != 0 or not live or path.read_bytes() == before
        for words in (["sql", "select count(*) from choices"], ["audit"], ["runs"]):
            assert run([*words, "--lake", str(lake)]) in TOLD, capfd.readouterr().err
        capfd.readouterr()

    check()


@pytest.mark.parametrize("path", sorted(CORPUS.glob("import-*")), ids=lambda path: path.name)
def test_what_once_broke_an_import_no_longer_does(files, tmp_path, path, capfd):
    """import-routing-1.parquet stands for routing.parquet, and so on."""
    name = {"routing": "routing.parquet", "requests": "requests.parquet", "run": "run.json"}
    shutil.copy(path, files / name[path.name.split("-")[1]])
    assert import_from(files, tmp_path / "lake") in TOLD, capfd.readouterr().err
