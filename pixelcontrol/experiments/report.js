// The figures and videos of a report. Plain JavaScript and SVG; reads the JSON beside it, loads nothing.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const shown = { axis: "frame", hidden: new Set(), seeds: true, cited: true };
const charts = [];

const SVG = "http://www.w3.org/2000/svg";
function draw(parent, name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return parent.appendChild(element);
}
function html(parent, name, properties) {
  return parent.appendChild(Object.assign(document.createElement(name), properties));
}

function short(number) {
  const size = Math.abs(number);
  if (size >= 1e6) return +(number / 1e6).toPrecision(3) + "M";
  if (size >= 1e3) return +(number / 1e3).toPrecision(3) + "k";
  return String(+number.toPrecision(3));
}

// Round numbers that divide a range into three to six parts.
function ticks(low, high) {
  const rough = (high - low) / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((m) => m * power >= rough) * power;
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) found.push(+tick.toPrecision(12));
  return found;
}

const AXIS_WORDS = { frame: "frames", hour: "hours of training", score: "score (1 = highest return)" };

class Chart {
  constructor(parent, spec) {
    this.spec = spec;
    this.zoom = null;
    this.card = html(parent, "article", { className: "card chart" });
    const heading = html(this.card, "h3", {});
    html(heading, "span", { textContent: spec.title });
    this.reset = html(heading, "button", { textContent: "all", title: "see all of it", hidden: true });
    this.reset.onclick = () => this.see(null);
    const widen = html(heading, "button", { textContent: "⤢", title: "larger or smaller" });
    widen.onclick = () => { this.card.classList.toggle("wide"); this.render(); };
    this.plot = html(this.card, "div", { className: "plot" });
    this.svg = draw(this.plot, "svg", { role: "img", "aria-label": spec.title });
    this.tip = html(this.plot, "div", { className: "tip", hidden: true });
    this.svg.addEventListener("pointerdown", (event) => this.press(event));
    this.svg.addEventListener("pointermove", (event) => this.move(event));
    this.svg.addEventListener("pointerup", (event) => this.release(event));
    this.svg.addEventListener("pointerleave", () => this.leave());
    this.svg.addEventListener("pointercancel", () => this.leave());
    this.svg.addEventListener("dblclick", () => this.see(null));
    new ResizeObserver(() => this.render()).observe(this.plot);
  }

  see(range) {
    this.zoom = range;
    this.reset.hidden = !range;
    this.render();
  }

  axis() { return this.spec.curves[0].x[shown.axis] ? shown.axis : "score"; }
  // Without those whose hours nobody measured, where hours are shown.
  curves() {
    return this.spec.curves.filter((curve) => !shown.hidden.has(curve.agent) && curve.x[this.axis()].at(-1) !== null);
  }
  published() {
    if (!shown.cited) return [];
    return this.spec.published.filter((row) => !shown.hidden.has(row.agent) && row.x[this.axis()] !== null);
  }

  // Limits of x and y over what is shown.
  limits() {
    const axis = this.axis();
    const ends = [
      ...this.curves().flatMap((c) => [c, ...c.runs].map((line) => line.x[axis].at(-1))),
      ...this.published().map((row) => row.x[axis]),
    ];
    const [left, right] = this.zoom ?? [0, Math.max(...ends, 1e-9) * 1.02];
    const seen = [];
    for (const curve of this.curves()) {
      curve.x[axis].forEach((x, i) => {
        if (x < left || x > right) return;
        seen.push(curve.mean[i]);
        if (curve.high[i] !== null) seen.push(curve.high[i]);
      });
      if (shown.seeds) for (const run of curve.runs) {
        run.x[axis].forEach((x, i) => { if (x >= left && x <= right) seen.push(run.y[i]); });
      }
    }
    for (const row of this.published()) {
      if (row.x[axis] >= left && row.x[axis] <= right) seen.push(row.mean + row.half);
    }
    // Not beyond what is possible, nor so near that next to nothing looks like much.
    const [least, most] = this.spec.top ? [0.1 * this.spec.top, this.spec.top] : [1e-9, Infinity];
    const top = Math.min(Math.max(...seen, least), most) * 1.03;
    return { left, right, bottom: Math.min(0, ...seen), top };
  }

  render() {
    const width = this.plot.clientWidth, height = this.svg.clientHeight;
    if (!width || !height) return;
    const box = { left: 42, right: width - 8, top: 8, bottom: height - 36 };
    const { left, right, bottom, top } = this.limits();
    const axis = this.axis();
    const x = (value) => box.left + ((value - left) / (right - left)) * (box.right - box.left);
    const y = (value) => box.bottom - ((value - bottom) / (top - bottom)) * (box.bottom - box.top);
    this.view = { box, left, right, x, y };

    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const id = `clip${charts.indexOf(this)}`;
    const clip = draw(this.svg, "clipPath", { id });
    draw(clip, "rect", { x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top });
    for (const tick of ticks(bottom, top)) {
      draw(this.svg, "line", { class: "gridline", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) });
      draw(this.svg, "text", { x: box.left - 6, y: y(tick) + 4, "text-anchor": "end" }).textContent = short(tick);
    }
    for (const tick of ticks(left, right)) {
      draw(this.svg, "line", { class: "gridline", x1: x(tick), x2: x(tick), y1: box.top, y2: box.bottom });
      draw(this.svg, "text", { x: x(tick), y: box.bottom + 15, "text-anchor": "middle" }).textContent = short(tick);
    }
    draw(this.svg, "line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom });
    draw(this.svg, "text", { x: box.right, y: height - 6, "text-anchor": "end" }).textContent = AXIS_WORDS[axis];
    draw(this.svg, "text", { x: box.left, y: height - 6 }).textContent = this.spec.unit;

    // null is no number: the line begins anew behind it.
    const path = (xs, ys) => xs.map((value, i) => ys[i] === null ? "" :
      `${i && ys[i - 1] !== null ? "L" : "M"}${x(value).toFixed(1)} ${y(ys[i]).toFixed(1)}`).join("");
    const layer = draw(this.svg, "g", { "clip-path": `url(#${id})` });
    for (const curve of this.curves()) {
      const xs = curve.x[axis];
      const group = draw(layer, "g", { class: "agent", style: `--colour: ${data.colours[curve.agent]}` });
      if (curve.low.every((value) => value !== null)) {
        const back = path([...xs].reverse(), [...curve.low].reverse()).replace("M", "L");
        draw(group, "path", { class: "band", d: path(xs, curve.high) + back + "Z" });
      }
      if (shown.seeds) for (const run of curve.runs) draw(group, "path", { class: "seed", d: path(run.x[axis], run.y) });
      draw(group, "path", { class: "mean", d: path(xs, curve.mean) });
    }
    for (const agent of new Set(this.published().map((row) => row.agent))) {
      const rows = this.published().filter((row) => row.agent === agent);
      const group = draw(layer, "g", { class: "agent", style: `--colour: ${data.colours[agent]}` });
      draw(group, "path", { class: "published", d: path(rows.map((row) => row.x[axis]), rows.map((row) => row.mean)) });
      for (const row of rows) {
        const cx = x(row.x[axis]), cy = y(row.mean);
        draw(group, "line", { x1: cx, x2: cx, y1: y(row.mean - row.half), y2: y(row.mean + row.half) });
        draw(group, "path", { class: "diamond", d: `M${cx} ${cy - 5}l5 5l-5 5l-5 -5Z` });
      }
    }
    this.pointer = draw(this.svg, "g", {});
  }

  // The data's x under an event, kept inside the panel.
  at(event) {
    const { box, left, right } = this.view;
    const inside = (event.clientX - this.svg.getBoundingClientRect().left - box.left) / (box.right - box.left);
    return left + Math.min(1, Math.max(0, inside)) * (right - left);
  }

  press(event) {
    if (event.pointerType === "mouse" && event.button !== 0) return;
    this.pressed = this.at(event);
    this.svg.setPointerCapture(event.pointerId);
  }

  move(event) {
    const value = this.at(event);
    const { box, x, y } = this.view;
    const axis = this.axis();
    this.pointer.replaceChildren();
    if (this.pressed !== undefined) {
      const [from, to] = [this.pressed, value].sort((a, b) => a - b);
      draw(this.pointer, "rect", { class: "selection", x: x(from), width: x(to) - x(from), y: box.top, height: box.bottom - box.top });
    }
    draw(this.pointer, "line", { class: "cursor", x1: x(value), x2: x(value), y1: box.top, y2: box.bottom });
    this.tip.replaceChildren();
    html(this.tip, "div", { textContent: `${short(value)} ${axis === "frame" ? "frames" : axis === "hour" ? "h" : ""}` });
    for (const curve of this.curves()) {
      const xs = curve.x[axis];
      const i = xs.reduce((best, x, j) => (Math.abs(x - value) < Math.abs(xs[best] - value) ? j : best), 0);
      if (curve.mean[i] === null) continue;
      const group = draw(this.pointer, "g", { class: "agent", style: `--colour: ${data.colours[curve.agent]}` });
      draw(group, "circle", { class: "dot", cx: x(xs[i]), cy: y(curve.mean[i]), r: 4 });
      const line = html(this.tip, "div", { className: "agent" });
      line.style.setProperty("--colour", data.colours[curve.agent]);
      html(line, "b", { textContent: `${curve.agent} ${short(curve.mean[i])}` });
      if (curve.low[i] !== null) line.append(`  ${short(curve.low[i])} to ${short(curve.high[i])}`);
    }
    this.tip.hidden = false;
    const roomRight = this.plot.clientWidth - x(value);
    this.tip.style.left = roomRight > this.tip.offsetWidth + 16 ? `${x(value) + 12}px` : `${Math.max(0, x(value) - this.tip.offsetWidth - 12)}px`;
  }

  release(event) {
    const [from, to] = [this.pressed ?? 0, this.at(event)].sort((a, b) => a - b);
    const pressed = this.pressed !== undefined;
    this.leave();
    if (pressed && this.view.x(to) - this.view.x(from) > 8) this.see([from, to]);
  }

  leave() {
    this.pressed = undefined;
    this.tip.hidden = true;
    this.pointer?.replaceChildren();
  }
}

function renderAll() {
  for (const chart of charts) chart.render();
}

function toggle(button, on) {
  button.setAttribute("aria-pressed", String(on));
}

for (const [place, specs] of Object.entries(data.charts)) {
  const parent = document.querySelector(`#${place} .charts`);
  for (const spec of specs) charts.push(new Chart(parent, spec));
}

for (const button of document.querySelectorAll("#axis button")) {
  button.onclick = () => {
    shown.axis = button.dataset.axis;
    for (const other of document.querySelectorAll("#axis button")) toggle(other, other === button);
    for (const chart of charts) chart.see(null);
  };
}
for (const agent of data.agents) {
  const button = html(document.getElementById("agents"), "button", { className: "agent", textContent: agent });
  button.style.setProperty("--colour", data.colours[agent]);
  toggle(button, true);
  button.onclick = () => {
    if (!shown.hidden.delete(agent)) shown.hidden.add(agent);
    toggle(button, !shown.hidden.has(agent));
    renderAll();
  };
}
for (const name of ["seeds", "cited"]) {
  const button = document.getElementById(name);
  button.onclick = () => {
    shown[name] = !shown[name];
    toggle(button, shown[name]);
    renderAll();
  };
}

// What the agent sees: the images that its video showed last, newest first, each at the agent's own resolution.
for (const policy of document.querySelectorAll(".policy")) {
  const video = policy.querySelector("video");
  const images = [...policy.querySelectorAll("canvas")].map((canvas) => canvas.getContext("2d"));
  const see = () => {
    for (let i = images.length - 1; i > 0; i--) images[i].drawImage(images[i - 1].canvas, 0, 0);
    const newest = images[0];
    if (newest) newest.drawImage(video, 0, 0, newest.canvas.width, newest.canvas.height);
    video.requestVideoFrameCallback(see);
  };
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(see);
}

// Only what can be seen plays.
const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) target.pause();
    else target.play().catch(() => { target.controls = true; });
  }
});
for (const video of document.querySelectorAll("video")) watcher.observe(video);
