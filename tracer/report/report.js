"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const palette = read("palette");
  const darkPage = matchMedia("(prefers-color-scheme: dark)");
  const main = document.querySelector("main");
  const tip = document.getElementById("tip");
  const redraw = [];
  let printing = false;

  const dark = () => darkPage.matches && !printing;
  const number = (value, digits) => (value === null ? "n/a" : value.toFixed(digits));

  // Colours of the scale at 256 places, for the theme in use.
  function colours() {
    const stops = palette[dark() ? "dark" : "light"].map((hex) =>
      [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
    return Array.from({ length: 256 }, (_, i) => {
      const at = (i / 255) * (stops.length - 1);
      const left = Math.min(Math.floor(at), stops.length - 2);
      const mix = stops[left].map((low, c) =>
        Math.round(low + (stops[left + 1][c] - low) * (at - left)));
      return `rgb(${mix.join(",")})`;
    });
  }

  // A canvas of this size in page pixels, sharp on any screen.
  function prepare(canvas, width, height) {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = "11px system-ui, sans-serif";
    return pen;
  }

  function stepFor(pixels, room) {
    return [1, 2, 4, 8, 16, 32, 64, 128, 256].find((step) => step * pixels >= room) || 512;
  }

  function heatmap(figure, data) {
    const canvas = figure.querySelector(".cells");
    const gutter = figure.querySelector(".gutter");
    const select = figure.querySelector("select");
    const rows = data.layers.length;
    const columns = data.experts;
    const top = 22;
    const members = data.committees.map((ids) => new Set(ids));
    const ranks = data.listed.map((layers) => layers.map((flat) => {
      const found = new Map();
      for (let i = 0; i < flat.length; i += 2) found.set(flat[i], flat[i + 1]);
      return found;
    }));
    let wide = 1;
    let high = 1;
    let at = null;

    function draw() {
      const scale = colours();
      const shares = data.shares[Number(select.value)];
      const ink = dark() ? "#9ba7b0" : "#58636d";
      const room = 34;
      wide = Math.max(4, Math.min(40, Math.floor((main.clientWidth - room - 2) / columns)));
      high = Math.max(9, Math.min(26, Math.floor(640 / rows)));
      const gap = wide >= 10 && high >= 10 ? 1 : 0;
      const pen = prepare(canvas, columns * wide + 2, rows * high + top + 2);
      let cells = 0;
      for (let layer = 0; layer < rows; layer += 1) {
        for (let expert = 0; expert < columns; expert += 1) {
          const share = shares[layer * columns + expert];
          const place = data.largest ? Math.sqrt(share / data.largest) : 0;
          pen.fillStyle = scale[Math.round(255 * place)];
          pen.fillRect(expert * wide + 1, top + layer * high + 1, wide - gap, high - gap);
          cells += 1;
        }
      }
      const line = wide >= 7 ? 2 : 1.5;
      let outlined = 0;
      pen.lineWidth = line;
      pen.strokeStyle = dark() ? "#ffa94d" : "#d9480f";
      members.forEach((ids, layer) => ids.forEach((expert) => {
        pen.strokeRect(expert * wide + 1 + line / 2 - 0.5, top + layer * high + 1 + line / 2 - 0.5,
          wide - gap - line + 1, high - gap - line + 1);
        outlined += 1;
      }));
      pen.fillStyle = ink;
      pen.textAlign = "center";
      for (let expert = 0; expert < columns; expert += stepFor(wide, 30)) {
        pen.fillText(String(expert), Math.max(expert * wide + 1 + wide / 2, 5), top - 8);
        pen.fillRect(expert * wide + 1 + wide / 2 - 0.5, top - 5, 1, 4);
      }
      const side = prepare(gutter, room, rows * high + top + 2);
      side.fillStyle = ink;
      side.textAlign = "right";
      side.textBaseline = "middle";
      for (let layer = 0; layer < rows; layer += stepFor(high, 13)) {
        side.fillText(String(data.layers[layer]), room - 6, top + layer * high + 1 + high / 2);
      }
      canvas.dataset.cells = String(cells);
      canvas.dataset.outlined = String(outlined);
      canvas.dataset.view = data.views[Number(select.value)];
      canvas.dataset.drawn = "true";
    }

    function words(layer, expert) {
      const view = Number(select.value);
      const share = data.shares[view][layer * columns + expert] / 1e6;
      const member = members[layer].has(expert) ? ", committee" : "";
      const lines = [
        `Layer ${data.layers[layer]}, expert ${expert}${member}`,
        data.views[view],
        `Share of the layer: ${(100 * share).toFixed(share < 0.01 ? 3 : 2)} %`,
        `Contribution: ${Number((share * data.totals[view][layer]).toPrecision(4))}`,
      ];
      if (view > 0) {
        const rank = ranks[view][layer].get(expert);
        lines.push(rank ? `Rank ${rank} of ${data.cutoff}` : `Not in this domain's top-${data.cutoff} list`);
      }
      return lines.join("\n");
    }

    function show(layer, expert) {
      at = [layer, expert];
      const box = canvas.getBoundingClientRect();
      tip.textContent = words(layer, expert);
      tip.hidden = false;
      const left = box.left + expert * wide + wide + 10;
      const fits = left + tip.offsetWidth < document.documentElement.clientWidth;
      const x = fits ? left : Math.max(4, box.left + expert * wide - tip.offsetWidth - 8);
      tip.style.left = `${x + window.scrollX}px`;
      tip.style.top = `${box.top + top + (layer + 1) * high + 8 + window.scrollY}px`;
    }

    function hide() {
      at = null;
      tip.hidden = true;
    }

    canvas.addEventListener("pointermove", (event) => {
      const layer = Math.floor((event.offsetY - top - 1) / high);
      const expert = Math.floor((event.offsetX - 1) / wide);
      if (layer < 0 || layer >= rows || expert < 0 || expert >= columns) hide();
      else if (!at || at[0] !== layer || at[1] !== expert) show(layer, expert);
    });
    canvas.addEventListener("pointerleave", hide);
    canvas.addEventListener("blur", hide);
    canvas.addEventListener("keydown", (event) => {
      const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
      if (event.key === "Escape") hide();
      const move = moves[event.key];
      if (!move) return;
      event.preventDefault();
      const [layer, expert] = at ? [at[0] + move[0], at[1] + move[1]] : [0, 0];
      show(Math.max(0, Math.min(rows - 1, layer)), Math.max(0, Math.min(columns - 1, expert)));
    });
    select.addEventListener("change", draw);
    redraw.push(draw);
    draw();
  }

  function jaccard(figure, data) {
    const select = figure.querySelector("select");
    const body = figure.querySelector(".matrix tbody");
    const random = figure.querySelector(".random");
    select.addEventListener("change", () => {
      const values = data.values[Number(select.value)];
      let cells = 0;
      [...body.rows].forEach((row, i) => [...row.cells].slice(1).forEach((cell, j) => {
        if (i === j) return;
        const high = Math.max(i, j);
        const value = values[(high * (high - 1)) / 2 + Math.min(i, j)];
        cell.textContent = number(value, 2);
        cell.className = value === null ? "" : `s${Math.round(20 * Math.min(Math.max(value, 0), 1))}`;
        cells += 1;
      }));
      random.textContent = number(data.random[Number(select.value)], 3);
      figure.dataset.cells = String(cells);
    });
    figure.dataset.drawn = "true";
  }

  function lorenz(figure) {
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
    figure.dataset.drawn = "true";
  }

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

  function tabs(list) {
    const buttons = [...list.querySelectorAll("[role=tab]")];
    const choose = (chosen) => {
      tip.hidden = true;
      for (const button of buttons) {
        const open = button === chosen;
        button.setAttribute("aria-selected", String(open));
        button.tabIndex = open ? 0 : -1;
        document.getElementById(button.getAttribute("aria-controls")).hidden = !open;
      }
    };
    buttons.forEach((button, i) => {
      button.addEventListener("click", () => choose(button));
      button.addEventListener("keydown", (event) => {
        const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (!move) return;
        const next = buttons[(i + move + buttons.length) % buttons.length];
        choose(next);
        next.focus();
      });
    });
    list.hidden = false;
    choose(buttons[0]);
  }

  for (const panel of document.querySelectorAll(".panel")) {
    const suffix = panel.dataset.suffix;
    const data = read(`data${suffix}`);
    const part = (name) => document.getElementById(name + suffix);
    if (part("heatmap").querySelector("canvas")) heatmap(part("heatmap"), data.heatmap);
    if (part("jaccard").querySelector("table")) jaccard(part("jaccard"), data.jaccard);
    if (part("lorenz").querySelector("svg")) lorenz(part("lorenz"));
  }
  document.querySelectorAll("table.sortable").forEach(sortable);
  document.querySelectorAll("[role=tablist]").forEach(tabs);

  const drawAll = () => redraw.forEach((draw) => draw());
  let pending = 0;
  window.addEventListener("resize", () => {
    cancelAnimationFrame(pending);
    pending = requestAnimationFrame(drawAll);
  });
  darkPage.addEventListener("change", drawAll);
  window.addEventListener("beforeprint", () => { printing = true; drawAll(); });
  window.addEventListener("afterprint", () => { printing = false; drawAll(); });
  document.documentElement.dataset.ready = "true";
})();
