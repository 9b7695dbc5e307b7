"""Who may import whom: the stages, the libraries, and what `import tracer` must not load."""

import ast
import graphlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "tracer"
BASE = (
    "tracer.errors",
    "tracer.records",
    "tracer.schema",
    "tracer.files",
    "tracer.domain_map",
)
STAGES = (
    "analysis",
    "bench",
    "capture",
    "datasets",
    "demo",
    "live",
    "report",
    "store",
    "workflow",
)

# What the modules of a stage may import beside base and themselves, at any level. The package
# itself holds the version only.
STAGE_IMPORTS = {
    "store": (),
    "analysis": (),
    "report": (),
    "datasets": (),
    "demo": ("tracer.datasets.prompts",),
    # The plugin, which vLLM loads from one place, hands a server's processes on.
    "capture": (
        "tracer.store",
        "tracer.datasets.options",
        "tracer.live.plugin",
        "tracer.live.worker",
    ),
    "live": ("tracer.capture", "tracer.store"),
    "bench": ("tracer.capture", "tracer.demo", "tracer.live", "tracer.store"),
    "workflow": tuple(f"tracer.{stage}" for stage in STAGES),
    "cli": tuple(f"tracer.{stage}" for stage in STAGES),
    "api": ("tracer.analysis", "tracer.store"),
    "dagster": ("tracer.store", "tracer.workflow"),
}

# Library -> modules or stages that may import it at all.
LIBRARY_HOMES = {
    "click": ("tracer.cli",),
    "dagster": ("tracer.dagster",),
    "datasets": ("tracer.datasets.hub",),
    "deltalake": ("tracer.live.writer", "tracer.store"),
    "duckdb": ("tracer.analysis", "tracer.api"),
    "httpx": ("tracer.bench.serve_load", "tracer.bench.serve_process"),
    "jinja2": ("tracer.report.html",),
    "llvmlite": ("tracer.store.compiled", "tracer.store.sum_kernels"),
    "numba": ("tracer.store.compiled", "tracer.store.sum_kernels"),
    "numpy": (
        "tracer.analysis",
        "tracer.bench",
        "tracer.capture",
        "tracer.demo",
        "tracer.live",
        "tracer.store",
        "tracer.workflow.bench_query",
    ),
    "obstore": ("tracer.store.s3_lease", "tracer.store.s3_storage", "tracer.store.s3_writes"),
    "pandas": ("tracer.bench.query",),
    "polars": ("tracer.analysis", "tracer.api", "tracer.cli.frames"),
    "prometheus_client": ("tracer.live.metrics",),
    "psutil": ("tracer.bench.serve_process", "tracer.capture.engine_setup"),
    "pyarrow": (
        "tracer.bench.bare_files",
        "tracer.bench.floor",
        "tracer.bench.query",
        "tracer.bench.write",
        "tracer.capture.drive",
        "tracer.datasets.files",
        "tracer.schema",
        "tracer.store",
    ),
    "py4j": ("tracer.analysis.measures.spark",),
    "pyspark": ("tracer.analysis.measures.spark",),
    "pydantic": (
        "tracer.live.config",
        "tracer.workflow.job_file",
        "tracer.workflow.job_load",
        "tracer.workflow.job_steps",
    ),
    "ray": ("tracer.workflow.workers",),
    "resvg_py": ("tracer.report.png",),
    "rich": ("tracer.cli.tables", "tracer.workflow.progress"),
    "safetensors": ("tracer.bench.models", "tracer.demo.checkpoint"),
    "sqlglot": ("tracer.analysis.measures.spark",),
    "tokenizers": ("tracer.demo.tokens",),
    "torch": (
        "tracer.bench.engine",
        "tracer.bench.memory",
        "tracer.capture",
        "tracer.store.sglang_records",
    ),
    "triton": ("tracer.capture.pack_kernel",),
    "vllm": ("tracer.bench", "tracer.capture", "tracer.live"),
    "yaml": ("tracer.live.config", "tracer.workflow.job_load"),
    "zstandard": ("tracer.datasets.lines", "tracer.store.column_chunks"),
}

# Libraries of an extra: only these modules may import them when they are loaded themselves.
EXTRA_AT_MODULE_LEVEL = {
    "dagster": ("tracer.dagster",),
    "datasets": (),
    "httpx": ("tracer.bench.serve_load", "tracer.bench.serve_process"),
    "psutil": ("tracer.bench.serve_process",),
    "py4j": (),
    "pyspark": (),
    "ray": (),
    "resvg_py": (),
    "safetensors": (),
    "sqlglot": (),
    "tokenizers": (),
    "torch": (
        "tracer.bench.memory",
        "tracer.capture.attach",
        "tracer.capture.buffer",
        "tracer.capture.drain",
        "tracer.capture.extras.candidates",
        "tracer.capture.extras.extra",
        "tracer.capture.extras.router_logits",
        "tracer.capture.extras.router_weights",
        "tracer.capture.pack",
        "tracer.capture.pack_kernel",
        "tracer.capture.row_format",
    ),
    "triton": ("tracer.capture.pack_kernel",),
    "vllm": (),
}

# Commands load at `tracer --help`, so they stay light; these two load inside commands.
CLI_HELPERS = {"tracer.cli.frames", "tracer.cli.tables"}
CLI_LIGHT = ("tracer", "tracer.errors", "tracer.records", "tracer.cli.options")

HEAVY = (
    "torch",
    "vllm",
    "duckdb",
    "polars",
    "pyarrow",
    "deltalake",
    "numpy",
    "numba",
    "transformers",
)
VAGUE = {"common", "helpers", "misc", "util", "utils"}


@dataclass(frozen=True)
class Import:
    """One imported module, as named; `deferred` inside a function or for type checkers."""

    importer: str
    imported: str
    deferred: bool
    relative: bool


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def collect(importer, node, *, deferred=False):
    """Every import below `node`; `from a import b` means a.b where that is a module."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(importer, alias.name, deferred, relative=False)
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                name = full if full in MODULES else str(child.module)
                yield Import(importer, name, deferred, relative=child.level > 0)
        else:
            inner = deferred or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from collect(importer, child, deferred=inner or typing_only)


IMPORTS = [
    found
    for name, path in MODULES.items()
    for found in collect(name, ast.parse(path.read_text(encoding="utf-8")))
]


def within(module, homes):
    return any(module == home or module.startswith(f"{home}.") for home in homes)


def ours():
    return [found for found in IMPORTS if within(found.imported, ["tracer"])]


def foreign():
    """(import, top-level library) of everything third-party."""
    for found in IMPORTS:
        library = found.imported.split(".")[0]
        if library != "tracer" and library not in sys.stdlib_module_names:
            yield found, library


def stage_of(module):
    return module.split(".")[1] if "." in module else ""


def told(imports):
    return [f"{found.importer} imports {found.imported}" for found in imports]


def test_the_reader_of_imports_sees_what_is_there():
    seen = {(found.importer, found.imported, found.deferred) for found in IMPORTS}
    assert ("tracer.cli", "click", False) in seen
    assert ("tracer.cli.audit", "tracer.analysis.audit", True) in seen
    assert ("tracer", "tracer.api", True) in seen
    assert ("tracer.__main__", "tracer.cli", False) in seen


def test_base_modules_import_each_other_in_order_only():
    assert (
        told(
            found
            for found in ours()
            if found.importer in BASE and found.imported not in BASE[: BASE.index(found.importer)]
        )
        == []
    )


@pytest.mark.parametrize("stage", STAGE_IMPORTS)
def test_a_stage_imports_base_itself_and_what_it_may(stage):
    allowed = (*BASE, f"tracer.{stage}", *STAGE_IMPORTS[stage])
    mine = [found for found in ours() if stage_of(found.importer) == stage]
    assert (
        told(
            found
            for found in mine
            if found.imported != "tracer" and not within(found.imported, allowed)
        )
        == []
    )


def test_every_module_belongs_to_a_stage_with_rules():
    known = {*STAGE_IMPORTS, *(stage_of(name) for name in BASE), "__main__", ""}
    assert {stage_of(name) for name in MODULES} <= known


def test_the_package_itself_loads_nothing():
    loaded = {
        found.imported for found in IMPORTS if found.importer == "tracer" and not found.deferred
    }
    assert loaded == {"typing"}


def test_commands_load_light_modules_only():
    """Command modules: click and light ones of ours; the rest inside the command function."""
    allowed = ("click", *CLI_LIGHT)
    loaded = [
        found
        for found in IMPORTS
        if stage_of(found.importer) == "cli"
        and found.importer not in CLI_HELPERS
        and not found.deferred
        and found.imported.split(".")[0] not in sys.stdlib_module_names
    ]
    assert loaded
    assert told(found for found in loaded if found.imported not in allowed) == []


def test_every_library_is_used_where_it_belongs():
    assert (
        told(
            found
            for found, library in foreign()
            if not within(found.importer, LIBRARY_HOMES[library])
        )
        == []
    )


def test_libraries_of_an_extra_load_where_they_are_used():
    assert (
        told(
            found
            for found, library in foreign()
            if library in EXTRA_AT_MODULE_LEVEL
            and not found.deferred
            and found.importer not in EXTRA_AT_MODULE_LEVEL[library]
        )
        == []
    )


def test_base_modules_need_no_library_but_arrow():
    assert [
        (found.importer, library) for found, library in foreign() if found.importer in BASE
    ] == [("tracer.schema", "pyarrow")]


def test_no_import_is_relative():
    assert told(found for found in IMPORTS if found.relative) == []


def test_no_module_has_a_name_that_says_nothing():
    assert [name for name in MODULES if name.split(".")[-1] in VAGUE] == []


def test_modules_do_not_load_each_other_in_a_circle():
    graph = {name: set() for name in MODULES}
    for found in ours():
        if not found.deferred:
            graph[found.importer].add(found.imported)
    assert list(graphlib.TopologicalSorter(graph).static_order())


LOADED = """
import json, sys
import tracer
after_import = sorted(sys.modules)
from tracer.cli import run
codes = [run(words) for words in {commands}]
print(json.dumps([after_import, codes, sorted(sys.modules)]), file=sys.stderr)
"""


def test_import_and_every_help_load_nothing_heavy():
    commands = [["--help"], ["--version"], *([name, "--help"] for name in command_names())]
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(commands=commands)],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    after_import, codes, after_help = json.loads(done.stderr)
    assert codes == [0] * len(commands)
    assert set(HEAVY) & set(after_import) == set()
    assert set(HEAVY) & set(after_help) == set()


def test_a_bench_loads_no_torch_before_it_has_settled_the_threads():
    code = "import sys, tracer.workflow.bench; sys.exit(bool({'torch', 'vllm'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=PACKAGE.parent)
    assert done.returncode == 0


def command_names():
    from tracer.cli import cli

    return cli.list_commands(None)
