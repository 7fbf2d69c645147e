// Canvas drawing of the lanes. Only lanes in view are drawn, and in each row at most one bar per pixel column,
// whatever the number of segments: the next bar is found by binary search behind the last one drawn.
const ROW_H = 20, TRUTH_H = 9, LANE_GAP = 6, AXIS_H = 26;
const canvas = byId("lanes"), pen = canvas.getContext("2d");
const overview = byId("overview"), mapPen = overview.getContext("2d");
const scroller = byId("scroller"), spacer = byId("spacer"), playhead = byId("playhead"), tip = byId("tip");
const view = { from: 0, to: duration, gutter: 150, width: 0, height: 0 };
const work = { bars: 0, searches: 0, frames: 0 }; // of the last frame; frames in all
let colours = {};
let asked = false;

function readColours() {
  paints.clear();
  const css = getComputedStyle(document.documentElement);
  for (const name of ["page", "card", "ink", "soft", "line", "lane", "accent", "bar-light", "bar-sat"]) {
    colours[name] = css.getPropertyValue(`--${name}`).trim();
  }
}
// Alpha in tenths, so that the browser parses few colours however many bars there are.
const paints = new Map();
function classColour(label, alpha = 1) {
  const key = label * 16 + Math.round(alpha * 10);
  if (!paints.has(key)) paints.set(key, `hsl(${hue[label]} ${colours["bar-sat"]} ${colours["bar-light"]} / ${Math.round(alpha * 10) / 10})`);
  return paints.get(key);
}

function fitCanvas(target, context, width, height) {
  const scale = window.devicePixelRatio || 1;
  if (target.width !== Math.round(width * scale) || target.height !== Math.round(height * scale)) {
    target.width = Math.round(width * scale);
    target.height = Math.round(height * scale);
  }
  context.setTransform(scale, 0, 0, scale, 0, 0);
}

const timeToX = (t) => view.gutter + ((t - view.from) / (view.to - view.from)) * (view.width - view.gutter);
const xToTime = (x) => view.from + ((x - view.gutter) / (view.width - view.gutter)) * (view.to - view.from);

// Where lanes lie, from the top of the whole list.
function layout() {
  let y = AXIS_H;
  for (const lane of lanes) {
    lane.top = y;
    lane.truthTop = y + LANE_GAP / 2;
    y = lane.truthTop + (lane.truth.items.length ? TRUTH_H : 0);
    lane.rowsTop = y;
    y += (lane.rows.length + (lane.rest.items.length ? 1 : 0)) * ROW_H;
    lane.bottom = y + LANE_GAP / 2;
    y = lane.bottom;
  }
  view.total = Math.max(y, AXIS_H + 60);
  spacer.style.height = `${view.total}px`;
  const room = Math.min(window.innerHeight * 0.56, 560);
  view.height = Math.min(view.total, room);
  scroller.style.height = `${view.height}px`;
  canvas.style.height = `${view.height}px`;
}

function rowBars(row, draw) {
  const { starts, ends, items } = row;
  const pixel = (view.to - view.from) / Math.max(1, view.width - view.gutter);
  let k = after(ends, view.from);
  while (k < items.length && starts[k] < view.to) {
    const x1 = Math.max(view.gutter, timeToX(starts[k]));
    const x2 = Math.max(x1 + 1, Math.min(view.width, timeToX(ends[k])));
    draw(items[k], x1, x2);
    work.bars += 1;
    // Whatever ends inside the pixel column just filled would not be seen.
    if (k + 1 < items.length && timeToX(ends[k + 1]) <= Math.ceil(x2)) {
      k = Math.max(k + 1, after(ends, xToTime(Math.ceil(x2)) + pixel * 1e-6));
      work.searches += 1;
    } else k += 1;
  }
}

function barText(text, x1, x2, y, height, colour) {
  pen.save();
  pen.beginPath(); pen.rect(x1, y, x2 - x1 - 3, height); pen.clip();
  pen.fillStyle = colour;
  pen.fillText(text, x1 + 5, y + height / 2 + 0.5);
  pen.restore();
}

function drawRow(row, y) {
  rowBars(row, (s, x1, x2) => {
    const strength = data.score_range[1] > data.score_range[0]
      ? (s.score - data.score_range[0]) / (data.score_range[1] - data.score_range[0]) : 1;
    pen.fillStyle = classColour(s.label, 0.4 + 0.6 * strength);
    pen.fillRect(x1, y + 1.5, x2 - x1, ROW_H - 3);
    if (s.id === state.selected) {
      pen.strokeStyle = colours.ink; pen.lineWidth = 2;
      pen.strokeRect(x1 + 0.5, y + 1.5, Math.max(2, x2 - x1 - 1), ROW_H - 3);
    }
    if (x2 - x1 < 34) return;
    const name = state.group === "class" ? s.score.toPrecision(2) : `${data.labels[s.label]} ${s.score.toPrecision(2)}`;
    const bright = hue[s.label] > 40 && hue[s.label] < 190; // yellow to cyan: white cannot be read on it
    const solid = strength > (bright ? 0.5 : 0.25);
    barText(name, x1, x2, y, ROW_H, solid ? (bright ? "#111" : "#fff") : colours.ink);
  });
}

function drawLane(lane, offset, stripe) {
  const top = lane.top - offset;
  if (stripe) { pen.fillStyle = colours.lane; pen.fillRect(0, top, view.width, lane.bottom - lane.top); }
  rowBars(lane.truth, (t, x1, x2) => {
    pen.fillStyle = colours.ink;
    pen.fillRect(x1, lane.truthTop - offset + 1.5, x2 - x1, TRUTH_H - 3);
  });
  lane.rows.forEach((row, k) => drawRow(row, lane.rowsTop - offset + k * ROW_H));
  if (lane.rest.items.length) {
    const y = lane.rowsTop - offset + lane.rows.length * ROW_H;
    rowBars(lane.rest, (s, x1, x2) => {
      pen.fillStyle = classColour(s.label, 0.28);
      pen.fillRect(x1, y + ROW_H / 2 - 3, x2 - x1, 6);
    });
  }
  pen.fillStyle = stripe ? colours.lane : colours.card;
  pen.fillRect(0, top, view.gutter, lane.bottom - lane.top);
  if (typeof lane.key === "number") { pen.fillStyle = classColour(lane.key); pen.fillRect(2, lane.rowsTop - offset + 4, 5, 12); }
  pen.save();
  pen.beginPath(); pen.rect(0, top, view.gutter - 8, lane.bottom - lane.top); pen.clip();
  pen.fillStyle = colours.ink;
  pen.fillText(lane.name, 13, Math.max(lane.rowsTop, lane.truthTop) - offset + ROW_H / 2 + (lane.rows.length ? 0 : -5));
  pen.restore();
}

function tickStep() {
  const wanted = ((view.to - view.from) / Math.max(1, view.width - view.gutter)) * 90;
  const steps = [0.04, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];
  return steps.find((s) => s >= wanted) ?? 43200;
}

function drawAxis() {
  pen.fillStyle = colours.card; pen.fillRect(0, 0, view.width, AXIS_H);
  const step = tickStep();
  pen.fillStyle = colours.soft; pen.strokeStyle = colours.line; pen.lineWidth = 1;
  for (let n = Math.ceil(view.from / step); n * step <= view.to; n += 1) {
    const x = Math.round(timeToX(n * step)) + 0.5;
    pen.beginPath(); pen.moveTo(x, AXIS_H - 7); pen.lineTo(x, AXIS_H); pen.stroke();
    const text = clockText(n * step, step < 1 ? 2 : 0);
    if (x + pen.measureText(text).width < view.width) pen.fillText(text, x + 4, 12);
  }
  pen.beginPath(); pen.moveTo(0, AXIS_H - 0.5); pen.lineTo(view.width, AXIS_H - 0.5); pen.stroke();
}

function drawLanes() {
  const offset = scroller.scrollTop;
  fitCanvas(canvas, pen, view.width, view.height);
  pen.clearRect(0, 0, view.width, view.height);
  pen.font = '12px system-ui, "DejaVu Sans", sans-serif';
  pen.textBaseline = "middle";
  work.bars = work.searches = 0;
  lanes.forEach((lane, k) => {
    if (lane.bottom > offset && lane.top < offset + view.height) drawLane(lane, offset, k % 2 === 1);
  });
  drawAxis();
  if (!lanes.length) {
    pen.fillStyle = colours.soft;
    pen.fillText("Nothing scores this much. Lower the threshold.", view.gutter + 10, AXIS_H + 30);
  }
}

// The bars of the strip change with the filter only; the frame over them with every move.
const strip = document.createElement("canvas"), stripPen = strip.getContext("2d");
let stripKey = "";

function drawStrip(width, height) {
  const key = [state.threshold, state.group, [...state.hidden], width, colours.page, window.devicePixelRatio].join();
  if (key === stripKey) return;
  stripKey = key;
  fitCanvas(strip, stripPen, width, height);
  stripPen.fillStyle = colours.lane; stripPen.fillRect(0, 0, width, height);
  const slice = Math.max(1, (height - 8) / Math.max(1, lanes.length));
  const saved = { ...view };
  Object.assign(view, { from: 0, to: duration, gutter: 0, width });
  lanes.slice(0, height).forEach((lane, k) => {
    for (const row of [...lane.rows, lane.rest]) {
      rowBars(row, (s, x1, x2) => {
        stripPen.fillStyle = classColour(s.label, 0.75);
        stripPen.fillRect(x1, 4 + k * slice, x2 - x1, Math.max(1, slice - 1));
      });
    }
  });
  Object.assign(view, saved);
}

function drawOverview() {
  const width = overview.clientWidth, height = 34;
  drawStrip(width, height);
  fitCanvas(overview, mapPen, width, height);
  mapPen.drawImage(strip, 0, 0, width, height);
  mapPen.strokeStyle = colours.accent; mapPen.lineWidth = 2;
  const x1 = (view.from / duration) * width, x2 = (view.to / duration) * width;
  mapPen.fillStyle = colours.accent; mapPen.globalAlpha = 0.12; mapPen.fillRect(x1, 0, x2 - x1, height); mapPen.globalAlpha = 1;
  mapPen.strokeRect(x1 + 1, 1, Math.max(4, x2 - x1 - 2), height - 2);
}

function drawPlayhead() {
  const x = timeToX(player.time);
  playhead.hidden = x < view.gutter || x > view.width;
  playhead.style.transform = `translateX(${x - 1}px)`;
}

function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    work.frames += 1;
    view.width = scroller.clientWidth;
    view.gutter = Math.min(190, Math.max(90, view.width * 0.15));
    drawOverview();
    drawLanes();
    drawPlayhead();
    byId("span").textContent = `${clockText(view.from)} to ${clockText(view.to)} of ${clockText(duration)}`;
  });
}

function show(from, to) {
  const shortest = Math.min(duration, Math.max(0.2, 4 / (data.fps || 25)));
  const length = Math.min(duration, Math.max(shortest, to - from));
  const middle = (from + to) / 2;
  view.from = Math.min(Math.max(0, middle - length / 2), duration - length);
  view.to = view.from + length;
  redraw();
}

function zoom(factor, around = player.time) {
  const anchor = around >= view.from && around <= view.to ? around : (view.from + view.to) / 2;
  show(anchor - (anchor - view.from) * factor, anchor + (view.to - anchor) * factor);
}

// Bring a time into view without changing the zoom.
function reveal(time) {
  const length = view.to - view.from;
  if (time < view.from || time > view.to) show(time - length * 0.2, time + length * 0.8);
}

function segmentAt(x, y) {
  const absolute = y + scroller.scrollTop;
  const lane = lanes.find((l) => absolute >= l.top && absolute < l.bottom);
  if (!lane || x < view.gutter || y < AXIS_H) return null;
  const number = Math.floor((absolute - lane.rowsTop) / ROW_H);
  const row = number === lane.rows.length ? lane.rest : lane.rows[number];
  if (!row) return null;
  const slack = ((view.to - view.from) / Math.max(1, view.width - view.gutter)) * 2;
  const time = xToTime(x), k = after(row.ends, time - slack);
  if (k >= row.items.length || row.starts[k] > time + slack) return null;
  return row.items[k].best ?? row.items[k];
}

// Where a segment is drawn, in pixels of the window; null when it is out of view.
function placeOf(id) {
  const frame = canvas.getBoundingClientRect();
  for (const lane of lanes) {
    for (let k = 0; k < lane.rows.length; k += 1) {
      const s = lane.rows[k].items.find((item) => item.id === id);
      if (!s || s.end < view.from || s.start > view.to) continue;
      const y = lane.rowsTop + (k + 0.5) * ROW_H - scroller.scrollTop;
      const x = (Math.max(view.gutter, timeToX(s.start)) + Math.min(view.width, timeToX(s.end))) / 2;
      return { x: frame.left + x, y: frame.top + y };
    }
  }
  return null;
}
