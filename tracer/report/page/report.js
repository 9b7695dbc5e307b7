// Wires the page: tabs, sorting, and each audit's figures when its tab is first opened.

const redraw = [];
const opened = new Set();

// Rows keep their place where a column has no number.
function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const body = table.tBodies[0];
      const key = (row) => {
        const text = row.cells[column].dataset.v;
        return text ? Number(text) : NaN;
      };
      const rows = [...body.rows].filter((row) => row.cells.length === heads.length);
      rows.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return x === y ? 0 : (x < y ? -1 : 1) * (up ? 1 : -1);
      });
      body.append(...rows);
    });
  });
}

// Large runs hold megabytes of numbers, so a panel reads its own when it is first seen.
function open(panel) {
  if (opened.has(panel)) return;
  opened.add(panel);
  const { suffix } = panel.dataset;
  const data = read(`data${suffix}`);
  const part = (name) => document.getElementById(name + suffix);
  const drawn = [];
  if (part("heatmap").querySelector("canvas")) {
    drawn.push(heatmap(part("heatmap"), data.heatmap, data.file));
  }
  if (part("jaccard").querySelector("select")) {
    drawn.push(jaccard(part("jaccard"), data.jaccard, data.file));
  }
  if (part("lorenz").querySelector("svg")) {
    lorenz(part("lorenz"), data.heatmap, data.file);
  }
  for (const [name, table] of Object.entries(data.tables)) {
    const block = panel.querySelector(`details[data-table="${name}"]`);
    if (block) numbers(block, data.file, () => table);
  }
  drawn.forEach((draw) => draw());
  redraw.push(...drawn);
}

function tabs(list) {
  const buttons = [...list.querySelectorAll("[role=tab]")];
  const choose = (chosen) => {
    tip.hidden = true;
    for (const button of buttons) {
      const panel = document.getElementById(button.getAttribute("aria-controls"));
      button.setAttribute("aria-selected", String(button === chosen));
      button.tabIndex = button === chosen ? 0 : -1;
      panel.hidden = button !== chosen;
      if (button === chosen) open(panel);
    }
  };
  buttons.forEach((button, i) => {
    button.addEventListener("click", () => choose(button));
    button.addEventListener("keydown", (event) => {
      const last = buttons.length - 1;
      const next = {
        ArrowLeft: i ? i - 1 : last, ArrowRight: i < last ? i + 1 : 0, Home: 0, End: last,
      }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      choose(buttons[next]);
      buttons[next].focus();
    });
  });
  list.hidden = false;
  choose(buttons[0]);
}

// Tokens of one layer, of members or of all experts.
function tokenRoles(section) {
  const whole = read("token-data");
  const [layer, who] = ["layer", "who"].map((name) =>
    section.querySelector(`[data-control=${name}]`));
  const text = whole.columns.indexOf("token");
  const shownRows = () => {
    const members = new Set(JSON.parse(who.dataset.members)[layer.value] || []);
    const rows = whole.rows.filter((row) => row[0] === Number(layer.value)
      && (who.value === "all" || members.has(row[1])));
    // Spaces and line ends are part of a token, so its text stands in quotes.
    return { columns: whole.columns, rows: rows.map((row) => row.map((value, place) =>
      (place === text && value !== null ? JSON.stringify(value) : value))) };
  };
  const refresh = numbers(section.querySelector("details.data"), section.dataset.file,
    shownRows, () => whole);
  for (const select of [layer, who]) select.addEventListener("change", refresh);
  refresh();
}

const panels = [...document.querySelectorAll(".panel")];
document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll("[role=tablist]").forEach(tabs);
if (panels.length === 1) open(panels[0]);

document.querySelectorAll("#token-roles").forEach(tokenRoles);

const drawAll = () => redraw.forEach((draw) => draw());
let pending = 0;
window.addEventListener("resize", () => {
  cancelAnimationFrame(pending);
  pending = requestAnimationFrame(drawAll);
});
darkPage.addEventListener("change", drawAll);
window.addEventListener("beforeprint", () => {
  printing = true;
  panels.forEach(open);
  drawAll();
});
window.addEventListener("afterprint", () => { printing = false; drawAll(); });
document.documentElement.dataset.ready = "true";
