"""What is written for people stays true of the code: help, headers, schemas, README, docs."""

import re
import runpy
import shlex
import subprocess

import click
import pytest
from click.testing import CliRunner

import tracer
from tracer.analysis.sql import query_text
from tracer.cli import cli
from tracer.schema import TABLES, table_schema

HEADER_WORDS = ("reads", "binds", "yields", "order")
OTHER_WORDS = ("source", "asks", "key", "values", "null")
# Places of one machine; /data is the working folder of the images.
MACHINE_PATH = re.compile(
    r"(?<![\w.:/~$}-])/(?:Users|etc|home|mnt|opt|root|srv|tmp|usr|var|work)(?![\w-])"
)
# In parts, so that this file does not name them.
REGISTRIES = (("pypi", "org"), ("files", "pythonhosted"), ("registry", "npmjs"))


def walk(command, words=()):
    """(words, command) of every command and subcommand."""
    yield words, command
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for name in command.list_commands(context):
                yield from walk(command.get_command(context, name), (*words, name))


COMMANDS = {" ".join(words): command for words, command in walk(cli)}
LEAVES = {name for name, command in COMMANDS.items() if not isinstance(command, click.Group)}
# `tracer query` alone lists measures.
RUNNABLE = LEAVES | {
    name
    for name, command in COMMANDS.items()
    if isinstance(command, click.Group) and command.invoke_without_command
}


@pytest.fixture(scope="module")
def documents(repository):
    """Text of README.md, CHANGELOG.md, docs/*.md and other folders' README.md by path."""
    paths = [repository / "README.md", repository / "CHANGELOG.md"]
    paths += sorted((repository / "docs").glob("*.md"))
    paths += [repository / folder / "README.md" for folder in ("benchmarks", "pipelines")]
    return {
        path.relative_to(repository).as_posix(): path.read_text(encoding="utf-8")
        for path in paths
        if path.exists()
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name):
    command = COMMANDS[name]
    assert command.help
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert [option.name for option in options if not option.help] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_how_the_command_is_used(name):
    result = CliRunner().invoke(cli, [*name.split(), "--help"])
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: cli {name}".rstrip())
    if name in LEAVES:
        _, example = result.output.split("\n  Example", maxsplit=1)
        assert f"tracer {name}" in example


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_examples_of_the_help_name_real_options(name):
    assert unknown_options(COMMANDS[name].help or "") == []


def unknown_options(text):
    """Options of known commands that do not exist, in lines that start with `tracer`.

    `capture` is left out: it hands what it does not know to vLLM.
    """
    unknown = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        match = re.match(r"\s*(?:\$ )?tracer (.+)", line)
        if not match:
            continue
        words = shlex.split(match[1], comments=True)
        count = next((n for n in (2, 1) if " ".join(words[:n]) in RUNNABLE), 0)
        if not count:
            unknown.append(line.strip())
        elif words[0] != "capture":
            # what stands behind a pipe or && is another program
            mine = [w for w in words[: first_other(words)] if w.startswith("--")]
            known = {o for p in COMMANDS[" ".join(words[:count])].params for o in p.opts}
            unknown += [w for w in mine if w.split("=")[0] not in {*known, "--help"}]
    return unknown


def first_other(words):
    return next((n for n, word in enumerate(words) if word in {"|", "&&", ";", ">"}), len(words))


def sql_files(repository):
    return sorted((repository / "queries").rglob("*.sql"))


def split_header(text):
    """(sections of the leading comment by their word, the SQL)."""
    lines = text.splitlines()
    length = next(n for n, line in enumerate(lines) if not line.startswith("--"))
    sections, word = {}, "title"
    for line in lines[:length]:
        match = re.match(rf"-- ({'|'.join((*HEADER_WORDS, *OTHER_WORDS))})\b(.*)", line)
        word = match[1] if match else word
        sections[word] = f"{sections.get(word, '')} {match[2] if match else line[2:]}".strip()
    return sections, "\n".join(lines[length:])


def test_every_query_has_a_header_that_is_true(repository):
    files = sql_files(repository)
    assert files
    for path in files:
        name = path.relative_to(repository / "queries").with_suffix("").as_posix()
        sections, sql = split_header(query_text(name))
        title = name.removeprefix("views/").removeprefix("measures/")
        assert sections["title"].startswith(f"{title}: "), name
        assert [word for word in HEADER_WORDS if not sections.get(word)] == [], name
        binds = set(re.findall(r"\$\w+", sections["binds"]))
        assert binds == set(re.findall(r"\$\w+", sql)), name
        assert binds or sections["binds"].startswith("none"), name


def test_every_schema_is_a_table_of_the_lake(repository):
    assert {path.stem for path in (repository / "schemas").glob("*.toml")} == set(TABLES)


@pytest.mark.parametrize("table", TABLES)
def test_every_table_and_column_says_what_it_holds(table):
    schema = table_schema(table)
    assert schema.row
    assert schema.doc.endswith(".")
    assert [column.name for column in schema.columns if not column.doc.endswith(".")] == []
    assert set(schema.key) <= {column.name for column in schema.columns}


@pytest.mark.parametrize(
    "path",
    [
        "README.md",
        "CHANGELOG.md",
        "benchmarks/README.md",
        "docs/architecture.md",
        "docs/architectures.md",
        "docs/capture.md",
        "docs/lake.md",
        "docs/queries.md",
        "docs/report.md",
        "docs/reproduce.md",
        "docs/serving.md",
        "docs/statistics.md",
    ],
)
def test_the_documents_are_there(documents, path):
    assert len(documents.get(path, "").split()) > 20


@pytest.mark.parametrize("path", ["README.md", "docs/capture.md"])
def test_the_first_screen_says_what_has_not_run(documents, path):
    """On CUDA one version ran, by hand: no reader should take it for tested like the CPU path."""
    first = " ".join(documents[path].splitlines()[:12])
    assert re.search(r"CUDA path: run (by hand )?with vLLM 0\.26", first)
    assert re.search(r"CI runs on CPUs|not in CI", first)


def test_make_targets_of_the_documents_exist(documents, repository):
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    code = "\n".join(re.findall(r"`+[^`]+`+", "\n".join(documents.values())))
    named = set(re.findall(r"(?:^|[`;\s])make ([a-z][\w-]*)", code))
    assert {"demo", "test", "test-oracle"} <= named
    assert named <= targets


def test_the_changelog_knows_this_version(documents):
    assert re.search(
        rf"^#+.*\b{re.escape(tracer.__version__)}\b", documents["CHANGELOG.md"], re.MULTILINE
    )


def test_every_command_is_documented(documents):
    text = "\n".join(documents.values())
    assert [name for name in sorted(LEAVES) if not re.search(rf"tracer {name}\b", text)] == []


def test_every_table_is_documented(documents):
    text = documents["docs/lake.md"]
    assert [t for t in TABLES if not re.search(rf"^#+ {t}$|`{t}`", text, re.MULTILINE)] == []


def sections_about(text, word):
    """What stands under every Markdown heading that has `word`, to the next heading as high."""
    found, level = [], 0
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        heading = None if fenced else re.match(r"(#+)\s+(.*)", line)
        if heading and (not level or len(heading[1]) <= level):
            level = len(heading[1]) if re.search(rf"\b{word}\b", heading[2]) else 0
        if level:
            found.append(line)
    return "\n".join(found)


@pytest.mark.parametrize("table", TABLES)
def test_the_lake_document_names_every_column_under_its_table(documents, table):
    section = sections_about(documents["docs/lake.md"], table)
    assert section, f"docs/lake.md has no heading with {table}"
    columns = [column.name for column in table_schema(table).columns]
    assert [name for name in columns if not re.search(rf"\b{name}\b", section)] == []


def test_commands_in_the_documents_have_the_options_they_use(documents):
    for path, text in documents.items():
        blocks = re.findall(
            r"^```(?:bash|sh|console|shell)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL
        )
        assert unknown_options("\n".join(blocks)) == [], path


def test_what_people_read_names_no_place_of_one_machine(documents, repository):
    texts = dict(documents)
    for path in (*sorted((repository / "pipelines").iterdir()), repository / "Makefile"):
        if path.suffix in {"", ".md", ".yaml"} and path.is_file():
            texts[path.name] = path.read_text(encoding="utf-8")
    # the placeholder that the comment above it says to set
    texts["crontab"] = texts["crontab"].replace("=/opt/moe-tracer\n", "=\n")
    found = {path: MACHINE_PATH.findall(text) for path, text in texts.items()}
    assert {path: places for path, places in found.items() if places} == {}
    assert {"README.md", "docs/lake.md", "crontab", "demo.yaml", "Makefile"} <= texts.keys()


def test_no_file_names_a_package_registry(repository):
    """Where packages come from is for the machine to say, not for the checkout."""
    if not (repository / ".git").exists():
        pytest.skip("needs the checkout's own list of files")
    hosts = [".".join(words) for words in REGISTRIES]
    words = ["git", "grep", "-lIF", *(word for host in hosts for word in ("-e", host))]
    found = subprocess.run(words, cwd=repository, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (1, ""), found


def test_links_between_the_documents_lead_somewhere(documents, repository):
    for path, text in documents.items():
        targets = re.findall(r"\]\((?!\w+:)([^)#\s]+)", text)
        missing = [t for t in targets if not ((repository / path).parent / t).exists()]
        assert missing == [], path


def test_the_tables_of_the_lake_page_are_those_of_the_schemas(repository):
    """`make docs` would change nothing."""
    namespace = runpy.run_path(str(repository / "docs" / "write_lake_tables.py"))
    text = (repository / "docs" / "lake.md").read_text(encoding="utf-8")
    assert namespace["page_with_tables"](text) == text


def test_the_catalogue_of_the_queries_page_is_that_of_the_headers(repository):
    """`make docs` would change nothing."""
    namespace = runpy.run_path(str(repository / "docs" / "write_queries.py"))
    text = (repository / "docs" / "queries.md").read_text(encoding="utf-8")
    assert namespace["page_with_catalogue"](text) == text
