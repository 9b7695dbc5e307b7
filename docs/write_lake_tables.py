"""Writes the table section of docs/lake.md from schemas/*.toml (`make docs`)."""

from pathlib import Path

from tracer.schema import TABLES, table_schema

PAGE = Path(__file__).with_name("lake.md")
BEGIN, END = "<!-- tables: made by `make docs` from schemas/*.toml -->", "<!-- end of tables -->"


def table_section() -> str:
    """Markdown of every table: what a row is, its key, its columns with type, unit, meaning."""
    parts = []
    for name in TABLES:
        table = table_schema(name)
        parts += [f"### {name}", "", f"One row per {table.row}. {table.doc}", ""]
        parts += [f"Key: {', '.join(f'`{column}`' for column in table.key)}.", ""]
        parts += ["| column | type | unit | meaning |", "|---|---|---|---|"]
        for column in table.columns:
            empty = " May be empty." if column.nullable else ""
            parts.append(
                f"| `{column.name}` | {column.type} | {column.unit} | {column.doc}{empty} |"
            )
        parts.append("")
    return "\n".join(parts)


def page_with_tables(text: str) -> str:
    """``text`` with everything between the two markers made anew."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{table_section()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
