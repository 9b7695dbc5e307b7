// The figures of one audit. Each gives a function that draws it anew.

const decimals = (value, digits) => (value === null ? "n/a" : value.toFixed(digits));
const percent = (share) => `${(100 * share).toFixed(share < 0.01 ? 3 : 2)} %`;
const rounded = (value) => Number(value.toPrecision(6));

function heatmap(figure, data, file) {
  const [view, layer] = ["view", "layer"].map((name) =>
    figure.querySelector(`[data-control=${name}]`));
  const size = data.experts;
  const columns = Array.from({ length: size }, (_, expert) => String(expert));
  const members = data.committees.map((ids) => new Set(ids));
  const ranks = data.listed.map((layers) => layers.map((flat) => {
    const found = new Map();
    for (let i = 0; i < flat.length; i += 2) found.set(flat[i], flat[i + 1]);
    return found;
  }));
  const share = (v, l, expert) => data.shares[v][l * size + expert] / 1e6;
  // Rows are layers in one view, or all views in one layer.
  const cell = (row) => (layer.value === "all" ? [Number(view.value), row] : [row, Number(layer.value)]);

  function words(row, expert) {
    const [v, l] = cell(row);
    const member = members[l].has(expert) ? ", committee" : "";
    const lines = [
      `Layer ${data.layers[l]}, expert ${expert}${member}`,
      data.views[v],
      `Share of the layer: ${percent(share(v, l, expert))}`,
      `Contribution: ${Number((share(v, l, expert) * data.totals[v][l]).toPrecision(4))}`,
    ];
    if (v > 0) {
      const rank = ranks[v][l].get(expert);
      lines.push(rank ? `Rank ${rank} of ${data.cutoff}` : `Not in this domain's top-${data.cutoff} list`);
    }
    return lines;
  }

  function spec() {
    const all = layer.value === "all";
    const rows = all ? data.layers.map(String) : data.views;
    view.disabled = !all;
    return {
      title: all ? data.views[Number(view.value)] : `Layer ${data.layers[Number(layer.value)]}`,
      rows,
      columns,
      turned: false,
      place: (row, expert) =>
        (data.largest ? Math.sqrt((1e6 * share(...cell(row), expert)) / data.largest) : 0),
      members: rows.map((_, row) => members[cell(row)[1]]),
      words,
    };
  }

  // What the picture shows now, for those who read: the largest of every row.
  function largest() {
    const { rows } = spec();
    const most = Math.min(data.cutoff, size, 8);
    const names = Array.from({ length: most }, (_, i) => `largest ${i + 1}`);
    return {
      columns: [layer.value === "all" ? "layer" : "domain", ...names],
      rows: rows.map((name, row) => {
        const [v, l] = cell(row);
        const order = columns.map(Number).sort((a, b) => share(v, l, b) - share(v, l, a) || a - b);
        return [name, ...order.slice(0, most).map((expert) =>
          `expert ${expert}: ${percent(share(v, l, expert))}${members[l].has(expert) ? " *" : ""}`)];
      }),
    };
  }

  function whole() {
    const rows = [];
    data.views.forEach((name, v) => data.layers.forEach((id, l) => {
      for (let expert = 0; expert < size; expert += 1) {
        rows.push([name, id, expert, share(v, l, expert),
          rounded(share(v, l, expert) * data.totals[v][l]),
          (v > 0 && ranks[v][l].get(expert)) || null, members[l].has(expert)]);
      }
    }));
    return {
      columns: ["domain", "layer", "expert", "share", "contribution", "rank", "member"], rows,
    };
  }

  const draw = grid(figure, spec);
  const refresh = numbers(figure.querySelector("details.data"), file, largest, whole);
  for (const select of [view, layer]) {
    select.addEventListener("change", () => { draw(); refresh(); });
  }
  return draw;
}

function jaccard(figure, data, file) {
  const select = figure.querySelector("select");
  const random = figure.querySelector(".random");
  const matrix = figure.querySelector(".matrix tbody");
  const value = (i, j) => {
    const high = Math.max(i, j);
    return i === j ? null : data.values[Number(select.value)][(high * (high - 1)) / 2 + Math.min(i, j)];
  };
  const title = (place) => (place ? `Layer ${data.layers[place - 1]}` : "Mean over layers");

  function drawTable() {
    let cells = 0;
    [...matrix.rows].forEach((row, i) => [...row.cells].slice(1).forEach((cell, j) => {
      if (i === j) return;
      const found = value(i, j);
      cell.textContent = decimals(found, 2);
      cell.className = found === null ? "" : `s${Math.round(20 * Math.min(Math.max(found, 0), 1))}`;
      cells += 1;
    }));
    figure.dataset.cells = String(cells);
  }

  const drawGrid = matrix ? null : grid(figure, () => ({
    title: title(Number(select.value)),
    rows: data.domains,
    columns: data.domains,
    turned: true,
    place: value,
    members: data.domains.map(() => []),
    words: (i, j) => [`${data.domains[i]} and ${data.domains[j]}`, title(Number(select.value)),
      i === j ? "the same domain" : `Jaccard index ${decimals(value(i, j), 3)}`],
  }));

  const pairs = (places) => ({
    columns: ["layer", "domain", "other domain", "Jaccard", "expected of random sets"],
    rows: places.flatMap((place) => data.domains.flatMap((name, j) =>
      data.domains.slice(0, j).map((other, i) => [place ? data.layers[place - 1] : "mean", other,
        name, data.values[place][(j * (j - 1)) / 2 + i], data.random[place]]))),
  });
  const refresh = numbers(figure.querySelector("details.data"), file,
    () => pairs([Number(select.value)]), () => pairs(data.values.map((_, place) => place)));
  const draw = drawGrid || drawTable;
  select.addEventListener("change", () => {
    draw();
    refresh();
    random.textContent = decimals(data.random[Number(select.value)], 3);
  });
  figure.dataset.drawn = "true";
  return draw;
}

function lorenz(figure, data, file) {
  const chart = figure.querySelector("svg.chart");
  const parts = [...figure.querySelectorAll("[data-layer]")];
  const light = (layer) => {
    chart.classList.toggle("lit", layer !== null);
    for (const part of parts) part.classList.toggle("on", part.dataset.layer === layer);
  };
  figure.addEventListener("pointerover", (event) => {
    const part = event.target.closest("[data-layer]");
    light(part ? part.dataset.layer : null);
  });
  figure.addEventListener("pointerleave", () => light(null));
  numbers(figure.querySelector("details.data"), file, () => {
    const rows = [];
    data.layers.forEach((id, l) => {
      const sorted = data.shares[0].slice(l * data.experts, (l + 1) * data.experts)
        .sort((a, b) => a - b);
      const total = sorted.reduce((sum, share) => sum + share, 0);
      if (total) rows.push([id, 0, 0]);
      let sum = 0;
      sorted.forEach((share, place) => {
        sum += share;
        if (total) rows.push([id, rounded((place + 1) / data.experts), rounded(sum / total)]);
      });
    });
    return { columns: ["layer", "share of experts", "share of contribution"], rows };
  });
  figure.dataset.drawn = "true";
}
