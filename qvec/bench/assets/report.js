"use strict";
const runs = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
// Colors that differ from each other and from a white or dark ground; each series also has a shape of its own.
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#c46d9d", "#b08000", "#3a96d0", "#a8644e", "#848992"];
// Shapes of marks as paths around 0, 0 of a radius of 1.
const SHAPES = [
  "M-1 0A1 1 0 1 0 1 0A1 1 0 1 0 -1 0Z",
  "M-.9 -.9H.9V.9H-.9Z",
  "M0 -1.25L1.25 0L0 1.25L-1.25 0Z",
  "M0 -1.2L1.15 .85H-1.15Z",
  "M0 1.2L1.15 -.85H-1.15Z",
  "M-.4 -1.1H.4V-.4H1.1V.4H.4V1.1H-.4V.4H-1.1V-.4H-.4Z",
  "M0 -1.3L.35 -.45L1.25 -.4L.55 .17L.77 1.05L0 .55L-.77 1.05L-.55 .17L-1.25 -.4L-.35 -.45Z",
  "M-1.1 -.6L-.6 -1.1L0 -.5L.6 -1.1L1.1 -.6L.5 0L1.1 .6L.6 1.1L0 .5L-.6 1.1L-1.1 .6L-.5 0Z",
  "M1.2 0L-.85 1.15V-1.15Z",
];

// What a point can be drawn by: name, value of (entry, point, run), and whether more is better.
const AXES = {
  recall: ["recall", (e, p) => p.recall],
  qps: ["queries/s, single", (e, p) => p.qps],
  qps_median: ["queries/s, single, median round", (e, p) => p.qps_median],
  batch_qps: ["queries/s, batch", (e, p) => p.batch_qps],
  p50_us: ["p50, microseconds", (e, p) => p.p50_us],
  p95_us: ["p95, microseconds", (e, p) => p.p95_us],
  p99_us: ["p99, microseconds", (e, p) => p.p99_us],
  rss: ["resident bytes per vector, with mapped originals", (e, p, r) => e.memory && e.memory.rss / r.n],
  index: ["bytes of index in memory per vector", (e) => e.index_memory],
  anonymous: ["anonymous bytes per vector", (e, p, r) => e.memory && e.memory.anonymous / r.n],
  file: ["bytes per vector on disk", (e, p, r) => e.file_bytes && e.file_bytes / r.n],
  build_s: ["build, seconds", (e) => e.build_s],
};
const WAYS = { qps: "single queries", batch_qps: "batch" };
const hidden = new Set();

const make = (parent, tag, attributes = {}, text = null) => {
  const svg = parent.namespaceURI === SVG;
  const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== null) element.textContent = text;
  parent.append(element);
  return element;
};
const fill = (select, options) => {
  select.replaceChildren();
  for (const [value, text] of options) make(select, "option", { value }, text);
};
const shown = (value) => {
  if (value === null || value === undefined) return "–";
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(value < 0.1 ? 2 : value < 1 ? 4 : 3)));
};
const run = () => runs[Number($("run").value)];
const number = (entry) => run().entries.indexOf(entry);
const color = (entry) => COLORS[number(entry) % COLORS.length];
// The next eight contestants have the same colors with other shapes.
const shape = (entry) => {
  const round = Math.floor(number(entry) / COLORS.length);
  return SHAPES[((number(entry) % COLORS.length) + round) % SHAPES.length];
};
const mark = (parent, entry, x, y, r) =>
  make(parent, "path", { d: shape(entry), class: "mark", style: `fill:${color(entry)}`, "vector-effect":
    "non-scaling-stroke", transform: `translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${r})` });
const searched = (point) => Object.entries(point.search).map(([name, value]) => `${name} ${value}`).join(", ");

// Points that no other of the same contestant beats in recall and speed, by ascending recall.
const frontOf = (points, way) => {
  const best = [];
  const order = points.filter((p) => p[way] !== null).sort((a, b) => b.recall - a.recall || b[way] - a[way]);
  for (const point of order) if (!best.length || point[way] > best[best.length - 1][way]) best.push(point);
  return best.reverse();
};
// Log-linear between points of the front; null where it does not get there.
const atRecall = (points, way, recall) => {
  const best = frontOf(points, way);
  if (!best.length || best[best.length - 1].recall < recall) return null;
  const i = best.findIndex((p) => p.recall >= recall);
  if (i === 0) return best[0][way];
  const [a, b] = [best[i - 1], best[i]];
  const share = (recall - a.recall) / (b.recall - a.recall);
  return Math.exp(Math.log(a[way]) + share * (Math.log(b[way]) - Math.log(a[way])));
};

// Value -> position; recall on a log axis shows what is missed.
const scale = (axis, log, values, from, to) => {
  const missed = axis === "recall" && log;
  const map = missed ? (v) => -Math.log10(Math.max(1 - v, 1e-4)) : log ? (v) => Math.log10(v) : (v) => v;
  let low = Math.min(...values.map(map)), high = Math.max(...values.map(map));
  const margin = (high - low || 1) * 0.04;
  low -= margin; high += margin;
  const position = (v) => from + ((map(v) - low) / (high - low)) * (to - from);
  return { position, ticks: ticks(missed, log, low, high) };
};
const ticks = (missed, log, low, high) => {
  const inside = (list, map) => list.filter((v) => map(v) >= low && map(v) <= high);
  if (missed) {
    const list = [0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999];
    return inside(list, (v) => -Math.log10(1 - v));
  }
  if (log) {
    const steps = (mantissas) => {
      const list = [];
      for (let e = Math.floor(low); e <= high; e++) for (const m of mantissas) list.push(m * 10 ** e);
      return inside(list, Math.log10);
    };
    const few = steps([1, 2, 5]);
    return few.length > 3 ? few : steps([1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]);
  }
  const rough = (high - low) / 7, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const list = [];
  for (let v = Math.ceil(low / step) * step; v <= high; v += step) list.push(Number(v.toPrecision(12)));
  return list;
};

let marks = [];
let current = null;
const draw = () => {
  const chart = $("chart"), [x, y] = [$("x").value, $("y").value];
  const width = chart.clientWidth, height = chart.clientHeight;
  const [left, right, top, bottom] = [64, width - 16, 16, height - 48];
  chart.replaceChildren();
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  [marks, current] = [[], null];
  $("tip").hidden = true;
  const way = y === "batch_qps" || x === "batch_qps" ? "batch_qps" : "qps";
  const series = run().entries.filter((entry) => !hidden.has(entry.contestant)).map((entry) => {
    const points = $("front").checked ? frontOf(entry.points, way) : entry.points;
    const at = (axis, point) => AXES[axis][1](entry, point, run());
    const values = points.map((point) => ({ entry, point, vx: at(x, point), vy: at(y, point) }));
    return { entry, values: values.filter((v) => Number.isFinite(v.vx) && Number.isFinite(v.vy)) };
  });
  const values = series.flatMap((s) => s.values);
  if (!values.length) return;
  const sx = scale(x, $("xlog").checked, values.map((v) => v.vx), left, right);
  const sy = scale(y, $("ylog").checked, values.map((v) => v.vy), bottom, top);
  for (const tick of sx.ticks) {
    make(chart, "line", { class: "grid", x1: sx.position(tick), x2: sx.position(tick), y1: top, y2: bottom });
    make(chart, "text", { x: sx.position(tick), y: bottom + 18, "text-anchor": "middle" }, shown(tick));
  }
  for (const tick of sy.ticks) {
    make(chart, "line", { class: "grid", x1: left, x2: right, y1: sy.position(tick), y2: sy.position(tick) });
    make(chart, "text", { x: left - 8, y: sy.position(tick) + 4, "text-anchor": "end" }, shown(tick));
  }
  make(chart, "text", { class: "title", x: (left + right) / 2, y: height - 8, "text-anchor": "middle" }, AXES[x][0]);
  make(chart, "text", { class: "title", x: left, y: top - 3 }, AXES[y][0]);
  for (const { entry, values } of series) {
    const placed = values.map((v) => ({ ...v, px: sx.position(v.vx), py: sy.position(v.vy) }));
    placed.sort((a, b) => a.px - b.px);
    const d = placed.map((v, i) => `${i ? "L" : "M"}${v.px.toFixed(1)} ${v.py.toFixed(1)}`).join("");
    if (d && $("front").checked) make(chart, "path", { d, stroke: color(entry), class: entry.own ? "own" : "peer" });
    for (const v of placed) {
      v.mark = mark(chart, entry, v.px, v.py, entry.own ? 5 : 4);
      marks.push(v);
    }
  }
};

// Show the figures of a mark; null: of none.
const select = (near) => {
  for (const each of marks) each.mark.classList.toggle("near", each === near);
  current = near;
  $("tip").hidden = !near;
  if (!near) return;
  const tip = $("tip");
  tip.replaceChildren();
  make(tip, "b", {}, near.entry.contestant);
  make(tip, "span", {}, searched(near.point));
  const list = make(tip, "dl");
  for (const [name, value] of Object.values(AXES)) {
    make(list, "dt", {}, name);
    make(list, "dd", {}, shown(value(near.entry, near.point, run())));
  }
  const room = $("chart").clientWidth, left = near.px < room / 2 ? near.px + 14 : near.px - 14 - tip.offsetWidth;
  tip.style.left = `${Math.max(0, Math.min(left, room - tip.offsetWidth))}px`;
  tip.style.top = `${Math.max(0, Math.min(near.py - 20, $("chart").clientHeight - tip.offsetHeight))}px`;
};
const point = (event) => {
  const box = $("chart").getBoundingClientRect();
  const [px, py] = [event.clientX - box.left, event.clientY - box.top];
  const distance = (each) => (each.px - px) ** 2 + (each.py - py) ** 2;
  const near = marks.reduce((best, each) => (!best || distance(each) < distance(best) ? each : best), null);
  select(near && distance(near) < 30 ** 2 ? near : null);
};
// Arrow keys: along a contestant, or to the nearest mark of the contestant before or after it.
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const move = (event) => {
  if (event.key === "Escape") return select(null);
  const step = STEPS[event.key];
  if (!step || !marks.length) return;
  event.preventDefault();
  if (!current) return select(marks[0]);
  const at = marks.indexOf(current) + step[0];
  if (step[0]) return select(marks[at] && marks[at].entry === current.entry ? marks[at] : current);
  const entries = [...new Set(marks.map((each) => each.entry))];
  const other = entries[(entries.indexOf(current.entry) + step[1] + entries.length) % entries.length];
  const far = (each) => Math.abs(each.px - current.px);
  select(marks.filter((each) => each.entry === other).sort((a, b) => far(a) - far(b))[0]);
};

const legend = () => {
  const list = $("legend");
  list.replaceChildren();
  for (const entry of run().entries) {
    const item = make(list, "li");
    const button = make(item, "button", { type: "button", "aria-pressed": !hidden.has(entry.contestant) });
    button.classList.toggle("off", hidden.has(entry.contestant));
    button.classList.toggle("own", entry.own);
    const sample = document.createElementNS(SVG, "svg");
    sample.setAttribute("viewBox", "-7 -7 14 14");
    sample.setAttribute("aria-hidden", "true");
    button.append(sample);
    mark(sample, entry, 0, 0, 5);
    make(button, "span", {}, entry.contestant);
    button.onclick = () => toggle(entry.contestant);
    const only = make(item, "button", { type: "button", "aria-label": `show only ${entry.contestant}` }, "only");
    only.onclick = () => alone(entry.contestant);
  }
};
// All buttons are replaced: the one that was pressed gets the focus again.
const redraw = () => {
  const place = [...$("legend").querySelectorAll("button")].indexOf(document.activeElement);
  legend(); draw();
  if (place >= 0) $("legend").querySelectorAll("button")[place].focus();
};
const toggle = (name) => { hidden.has(name) ? hidden.delete(name) : hidden.add(name); redraw(); };
const alone = (name) => {
  for (const entry of run().entries) hidden.add(entry.contestant);
  hidden.delete(name); redraw();
};

const rank = () => {
  const [way, recall, against] = [$("way").value, Number($("target").value), $("against").value];
  const rows = run().entries.map((entry) => ({ entry, rate: atRecall(entry.points, way, recall) }));
  rows.sort((a, b) => (b.rate ?? -1) - (a.rate ?? -1));
  const peers = rows.filter((row) => !row.entry.own && row.rate !== null);
  const reference = against === "" ? peers[0] : rows.find((row) => row.entry.contestant === against);
  const table = $("ranking");
  table.replaceChildren();
  const head = make(make(table, "thead"), "tr");
  for (const title of ["contestant", "queries/s", "ratio", "", "bytes per vector", "build s"]) make(head, "th", {}, title);
  const body = make(table, "tbody");
  for (const { entry, rate } of rows) {
    const row = make(body, "tr", { class: entry.own ? "own" : "peer" });
    make(row, "td", {}, entry.contestant);
    make(row, "td", {}, rate === null ? "not reached" : shown(rate));
    const ratio = rate !== null && reference && reference.rate ? rate / reference.rate : null;
    make(row, "td", {}, ratio === null ? "–" : ratio.toFixed(2));
    const share = rate === null ? 0 : (100 * rate) / rows[0].rate;
    make(make(row, "td", { class: "bar" }), "i", { style: `width:${share}%;background:${color(entry)}` });
    make(row, "td", {}, shown(AXES.index[1](entry)));
    make(row, "td", {}, shown(entry.build_s));
  }
};

const choose = () => {
  hidden.clear();
  $("about").textContent = run().about;
  fill($("against"), [["", "the best peer"], ...run().entries.map((entry) => [entry.contestant, entry.contestant])]);
  document.querySelectorAll("[data-run]").forEach((part) => { part.hidden = part.dataset.run !== $("run").value; });
  legend(); draw(); rank();
};

fill($("run"), runs.map((each, i) => [i, each.name]));
$("runs").hidden = runs.length < 2;
for (const id of ["x", "y"]) fill($(id), Object.entries(AXES).map(([name, [title]]) => [name, title]));
[$("x").value, $("y").value] = ["recall", "qps"];
fill($("way"), Object.entries(WAYS));
$("run").value = String(runs.length - 1);
$("run").onchange = choose;
for (const id of ["x", "y", "xlog", "ylog", "front"]) $(id).onchange = draw;
for (const id of ["target", "way", "against"]) $(id).oninput = rank;
$("all").onclick = () => { hidden.clear(); legend(); draw(); };
$("none").onclick = () => { run().entries.forEach((entry) => hidden.add(entry.contestant)); legend(); draw(); };
$("chart").onpointermove = point;
$("chart").onpointerleave = () => select(null);
$("chart").onkeydown = move;
$("chart").onblur = () => select(null);
addEventListener("resize", draw);
choose();
