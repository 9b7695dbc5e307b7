// A grid of coloured cells on a canvas, with a tip for every cell, by pointer and by keyboard.

const palette = read("palette");
const darkPage = matchMedia("(prefers-color-scheme: dark)");
const main = document.querySelector("main");
const tip = document.getElementById("tip");
const PAPER = 680; // width of a printed page, CSS pixels
let printing = false;

const dark = () => darkPage.matches && !printing;

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
  pen.fillStyle = dark() ? "#9ba7b0" : "#58636d";
  return pen;
}

const every = (pixels, room) =>
  [1, 2, 4, 8, 16, 32, 64, 128, 256].find((step) => step * pixels >= room) || 512;

// Text cut to a width, with an ellipsis.
function cut(pen, text, width) {
  if (pen.measureText(text).width <= width) return text;
  let end = Math.min(text.length, Math.floor(width / 4));
  while (end > 1 && pen.measureText(`${text.slice(0, end)}…`).width > width) end -= 1;
  return `${text.slice(0, end)}…`;
}

// `specOf` says what to draw now: names of rows and columns (`turned` where column names are
// words), `place(row, column)` from 0 to 1 or null, `members` per row, `words(row, column)`.
function grid(figure, specOf) {
  const canvas = figure.querySelector(".cells");
  const gutter = figure.querySelector(".gutter");
  let spec = null;
  let wide = 1;
  let high = 1;
  let top = 22;
  let at = null;

  function measure(pen) {
    const longest = (names) => Math.max(0, ...names.map((name) => pen.measureText(name).width));
    const room = Math.min(150, longest(spec.rows) + 10);
    const free = (printing ? PAPER : main.clientWidth) - Math.max(room, 34) - 2;
    const each = free / spec.columns.length;
    wide = printing ? Math.min(40, each) : Math.max(spec.turned ? 9 : 4, Math.min(40, Math.floor(each)));
    high = Math.max(9, Math.min(26, Math.floor(640 / spec.rows.length)));
    if (spec.turned) high = Math.min(high, Math.max(9, wide));
    top = spec.turned ? Math.min(150, longest(spec.columns)) + 10 : 22;
    return Math.max(room, 34);
  }

  function cells(pen) {
    const scale = colours();
    const gap = wide >= 10 && high >= 10 ? 1 : 0;
    let count = 0;
    spec.rows.forEach((_, row) => spec.columns.forEach((__, column) => {
      const place = spec.place(row, column);
      count += 1;
      if (place === null) return;
      pen.fillStyle = scale[Math.round(255 * Math.max(0, Math.min(1, place)))];
      pen.fillRect(column * wide + 1, top + row * high + 1, wide - gap, high - gap);
    }));
    const line = wide >= 7 ? 2 : 1.5;
    let outlined = 0;
    pen.lineWidth = line;
    pen.strokeStyle = dark() ? "#ffa94d" : "#d9480f";
    spec.members.forEach((ids, row) => ids.forEach((column) => {
      pen.strokeRect(column * wide + 1 + line / 2 - 0.5, top + row * high + 1 + line / 2 - 0.5,
        wide - gap - line + 1, high - gap - line + 1);
      outlined += 1;
    }));
    canvas.dataset.cells = String(count);
    canvas.dataset.outlined = String(outlined);
  }

  function heads(pen) {
    pen.fillStyle = dark() ? "#9ba7b0" : "#58636d";
    pen.textBaseline = spec.turned ? "middle" : "alphabetic";
    pen.textAlign = spec.turned ? "left" : "center";
    const step = every(wide, spec.turned ? 11 : 30);
    for (let column = 0; column < spec.columns.length; column += step) {
      const x = column * wide + 1 + wide / 2;
      if (spec.turned) {
        pen.save();
        pen.translate(x, top - 4);
        pen.rotate(-Math.PI / 2);
        pen.fillText(cut(pen, spec.columns[column], 140), 0, 0);
        pen.restore();
      } else {
        pen.fillText(spec.columns[column], Math.max(x, 5), top - 8);
        pen.fillRect(x - 0.5, top - 5, 1, 4);
      }
    }
  }

  function draw() {
    spec = specOf();
    const room = measure(prepare(gutter, 10, 10));
    const height = spec.rows.length * high + top + 2;
    const pen = prepare(canvas, spec.columns.length * wide + 2, height);
    cells(pen);
    heads(pen);
    const side = prepare(gutter, room, height);
    side.textAlign = "right";
    side.textBaseline = "middle";
    for (let row = 0; row < spec.rows.length; row += every(high, 11)) {
      side.fillText(cut(side, spec.rows[row], room - 8), room - 6, top + row * high + 1 + high / 2);
    }
    canvas.dataset.view = spec.title;
    canvas.dataset.drawn = "true";
  }

  function hide() {
    at = null;
    tip.hidden = true;
  }

  function show(row, column) {
    at = [row, column];
    const box = canvas.getBoundingClientRect();
    tip.textContent = spec.words(row, column).join("\n");
    tip.hidden = false;
    const left = box.left + column * wide + wide + 10;
    const fits = left + tip.offsetWidth < document.documentElement.clientWidth;
    const x = fits ? left : Math.max(4, box.left + column * wide - tip.offsetWidth - 8);
    tip.style.left = `${x + window.scrollX}px`;
    tip.style.top = `${box.top + top + (row + 1) * high + 8 + window.scrollY}px`;
  }

  canvas.addEventListener("pointermove", (event) => {
    const row = Math.floor((event.offsetY - top - 1) / high);
    const column = Math.floor((event.offsetX - 1) / wide);
    const outside = row < 0 || row >= spec.rows.length || column < 0
      || column >= spec.columns.length;
    if (outside) hide();
    else if (!at || at[0] !== row || at[1] !== column) show(row, column);
  });
  canvas.addEventListener("pointerleave", hide);
  canvas.addEventListener("blur", hide);
  canvas.addEventListener("keydown", (event) => {
    const far = Math.max(spec.rows.length, spec.columns.length);
    const moves = {
      ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1],
      Home: [0, -far], End: [0, far], PageUp: [-far, 0], PageDown: [far, 0],
    };
    if (event.key === "Escape") hide();
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    const [row, column] = at ? [at[0] + move[0], at[1] + move[1]] : [0, 0];
    show(Math.max(0, Math.min(spec.rows.length - 1, row)),
      Math.max(0, Math.min(spec.columns.length - 1, column)));
  });
  return () => { hide(); draw(); };
}
