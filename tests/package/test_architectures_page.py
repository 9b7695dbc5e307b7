"""docs/architectures.md lists exactly the architectures that are tested, as its maker writes it."""

import json
import runpy

from tests.engine.architectures import ARCHITECTURES


def test_the_page_lists_the_tested_architectures(repository):
    results = json.loads((repository / "docs" / "architectures.json").read_text())
    assert set(results) == {architecture.name for architecture in ARCHITECTURES}
    page = (repository / "docs" / "architectures.md").read_text(encoding="utf-8")
    lines = page.split("<!-- table")[1].split("<!-- end of table")[0].splitlines()
    table = [line.split("|")[1].strip() for line in lines if line.startswith("| ")]
    assert sorted(table[1:]) == sorted(results)


def test_the_page_is_what_its_maker_writes(repository):
    maker = runpy.run_path(str(repository / "docs" / "write_architectures.py"))
    page = (repository / "docs" / "architectures.md").read_text(encoding="utf-8")
    assert maker["page_with_table"](page) == page
