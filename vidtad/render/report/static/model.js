// The data of the page and what is shown of it: lanes, rows inside lanes, and the filter.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const ROWS = 4; // rows a lane may grow to before the rest is drawn as coverage only

function clockText(seconds, digits = 1) {
  const whole = Math.max(0, seconds);
  const h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60;
  const s = (whole % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
  if (s.startsWith("60")) return clockText(Math.round(whole), digits);
  return h ? `${h}:${String(m).padStart(2, "0")}:${s}` : `${m}:${s}`;
}

// First index whose value is greater than `wanted`, in a rising array.
function after(sorted, wanted) {
  let low = 0, high = sorted.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (sorted[mid] > wanted) high = mid; else low = mid + 1;
  }
  return low;
}

const segments = data.segments.map(([start, end, label, score, track], id) => ({ id, start, end, label, score, track }));
const inTime = [...segments].sort((a, b) => a.start - b.start || b.score - a.score);
const truth = data.truth.map(([start, end, label]) => ({ start, end, label }));
const duration = Math.max(data.duration, 0.001, ...[segments, truth].map((list) => list.reduce((m, s) => Math.max(m, s.end), 0)));
const hue = data.labels.map((_, k) => (k * 137.508 + 212) % 360);
const state = { threshold: data.threshold, group: data.group, hidden: new Set(), selected: -1 };

class Row {
  constructor() { this.items = []; this.starts = []; this.ends = []; }
  fits(s) {
    const next = after(this.starts, s.start);
    return (next === 0 || this.ends[next - 1] <= s.start) && (next === this.starts.length || this.starts[next] >= s.end);
  }
  add(s) {
    const place = after(this.starts, s.start);
    this.items.splice(place, 0, s); this.starts.splice(place, 0, s.start); this.ends.splice(place, 0, s.end);
  }
  push(s) { this.items.push(s); this.starts.push(s.start); this.ends.push(s.end); }
}

// Rows are filled best score first, so a row never changes when the threshold moves: what is shown is a part of it.
function lanesOf(group) {
  const lanes = new Map();
  const lane = (key, name) => {
    if (!lanes.has(key)) lanes.set(key, { key, name, all: [], rest: [], truth: new Row(), seconds: 0 });
    return lanes.get(key);
  };
  for (const s of [...segments].sort((a, b) => b.score - a.score || a.start - b.start)) {
    const person = s.track === null ? "no person" : `person ${s.track}`;
    const into = group === "class" ? lane(s.label, data.labels[s.label]) : lane(person, person);
    let row = into.all.find((r) => r.fits(s));
    if (!row && into.all.length < ROWS) into.all.push(row = new Row());
    if (row) row.add(s); else into.rest.push(s);
  }
  for (const t of [...truth].sort((a, b) => a.start - b.start)) {
    const into = group === "class" ? lane(t.label, data.labels[t.label]) : lane("truth", "ground truth");
    into.truth.push(t);
  }
  const list = [...lanes.values()];
  for (const l of list) l.rest.sort((a, b) => a.start - b.start);
  return list.sort((a, b) => String(a.name).localeCompare(String(b.name), undefined, { numeric: true }));
}

const shownSegment = (s) => s.score >= state.threshold && !state.hidden.has(s.label);

function filtered(row) {
  const kept = new Row();
  for (const s of row.items) if (shownSegment(s)) kept.push(s);
  return kept;
}

// Segments that found no row: their union, each stretch with the surest segment in it.
function coverage(rest) {
  const row = new Row();
  for (const s of rest) {
    if (!shownSegment(s)) continue;
    const last = row.items.length - 1;
    if (last >= 0 && s.start <= row.ends[last]) {
      row.ends[last] = Math.max(row.ends[last], s.end);
      if (s.score > row.items[last].best.score) row.items[last].best = s;
      row.items[last].end = row.ends[last];
    } else row.push({ start: s.start, end: s.end, label: s.label, score: s.score, best: s });
  }
  return row;
}

let allLanes = { class: null, person: null };
let lanes = [];
let shown = []; // segments that pass the filter, in order of time
let starts = [];

function applyFilter() {
  allLanes[state.group] ??= lanesOf(state.group);
  lanes = [];
  for (const lane of allLanes[state.group]) {
    const rows = lane.all.map(filtered).filter((r) => r.items.length);
    const rest = coverage(lane.rest);
    const marks = new Row();
    for (const t of lane.truth.items) if (!state.hidden.has(t.label)) marks.push(t);
    if (rows.length || rest.items.length || marks.items.length) lanes.push({ ...lane, rows, rest, truth: marks });
  }
  shown = inTime.filter(shownSegment);
  starts = shown.map((s) => s.start);
  if (state.selected >= 0 && !shownSegment(segments[state.selected])) state.selected = -1;
}

function activeAt(time) {
  return shown.filter((s) => s.start <= time && time < s.end).sort((a, b) => b.score - a.score);
}

// Persons: boxes per track in order of time, interpolated between keyframes that lie close enough.
const tracks = new Map();
for (const [time, track, x1, y1, x2, y2, score, actions] of data.people) {
  if (!tracks.has(track)) tracks.set(track, { times: [], boxes: [] });
  const t = tracks.get(track);
  t.times.push(time); t.boxes.push({ box: [x1, y1, x2, y2], score, actions });
}

function personsAt(time) {
  const found = [];
  for (const [track, { times, boxes }] of tracks) {
    const next = after(times, time), before = next - 1;
    const near = before >= 0 && time - times[before] <= data.step * 0.5;
    const between = before >= 0 && next < times.length && times[next] - times[before] <= data.step * 1.5;
    let box = null, keyframe = null;
    if (between) {
      const part = (time - times[before]) / (times[next] - times[before]);
      box = boxes[before].box.map((v, k) => v + (boxes[next].box[k] - v) * part);
      keyframe = boxes[part < 0.5 ? before : next];
    } else if (near) { keyframe = boxes[before]; box = keyframe.box;
    } else if (next < times.length && times[next] - time <= data.step * 0.5) { keyframe = boxes[next]; box = keyframe.box; }
    if (!box) continue;
    const actions = keyframe.actions.filter(([label, score]) => score >= state.threshold && !state.hidden.has(label));
    found.push({ track, box, actions: actions.sort((a, b) => b[1] - a[1]) });
  }
  return found;
}
