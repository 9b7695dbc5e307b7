// Numbers behind the figures: shown when their block is opened, saved as CSV or JSON. All of it is
// made from the page's own data; nothing is fetched.

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const MOST_ROWS = 1000;

const quoted = (value) => {
  const text = value === null ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

const writers = {
  csv: ({ columns, rows }) => [columns, ...rows].map((row) => `${row.map(quoted).join(",")}\n`),
  json: ({ columns, rows }) => {
    const lines = rows.map((row) => JSON.stringify(
      Object.fromEntries(columns.map((name, place) => [name, row[place]]))));
    return ["[\n", lines.join(",\n"), "\n]\n"];
  },
};
const types = { csv: "text/csv;charset=utf-8", json: "application/json" };

function save(name, parts, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(parts, { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

const shown = (value) => {
  if (value === null) return "n/a";
  return typeof value === "number" ? String(Number(value.toPrecision(6))) : value;
};

function fill(place, table) {
  const element = document.createElement("table");
  element.className = "numbers";
  const line = (parent, values, tag) => {
    const row = parent.insertRow();
    values.forEach((value, number) => {
      const cell = document.createElement(number ? tag : "th");
      cell.textContent = shown(value);
      cell.dir = "auto";
      if (tag === "th" || !number) cell.scope = tag === "th" ? "col" : "row";
      row.append(cell);
    });
  };
  line(element.createTHead(), table.columns, "th");
  const body = element.createTBody();
  table.rows.slice(0, MOST_ROWS).forEach((row) => line(body, row, "td"));
  place.replaceChildren(element);
  if (table.rows.length > MOST_ROWS) {
    const more = document.createElement("p");
    more.className = "muted";
    more.textContent = `The first ${MOST_ROWS} of ${table.rows.length} rows; the files hold all.`;
    place.append(more);
  }
}

// A block <details class="data">; `show` gives the table on the page, `whole` that of the files.
function numbers(block, file, show, whole = show) {
  const place = block.querySelector(".scroll");
  const refresh = () => { if (block.open) fill(place, show()); };
  block.addEventListener("toggle", refresh);
  for (const button of block.querySelectorAll("[data-as]")) {
    const { as } = button.dataset;
    button.addEventListener("click", () =>
      save(`${file}-${block.dataset.table}.${as}`, writers[as](whole()), types[as]));
  }
  block.hidden = false;
  return refresh;
}
