// Controls, keyboard, summary, export.
function setThreshold(value, from) {
  if (!Number.isFinite(value)) return;
  state.threshold = value;
  if (from !== "slider") byId("threshold").value = value;
  if (from !== "number") byId("threshold-number").value = Number(value.toPrecision(4));
  refresh();
}

function refresh() {
  applyFilter();
  layout();
  byId("count").textContent = `${shown.length} of ${segments.length} segments`;
  canvas.setAttribute("aria-label",
    `Timeline: ${shown.length} segments in ${lanes.length} lanes over ${clockText(duration, 0)}. Press j and k to walk through them.`);
  fillSummary();
  lastNow = "?";
  redraw();
  onTime();
}

function select(s, seek = true) {
  state.selected = s.id;
  const who = s.track === null ? "" : `, person ${s.track}`;
  byId("selected").textContent =
    `${data.labels[s.label]}: ${clockText(s.start, 2)} to ${clockText(s.end, 2)} (${(s.end - s.start).toFixed(2)} s), score ${s.score.toPrecision(3)}${who}`;
  if (seek) player.seek(s.start);
  reveal(s.start);
  const lane = lanes.find((l) => l.rows.some((r) => r.items.includes(s)));
  if (lane && (lane.top - AXIS_H < scroller.scrollTop || lane.bottom > scroller.scrollTop + view.height)) {
    scroller.scrollTop = lane.top - AXIS_H;
  }
  redraw();
}

function step(direction) {
  if (!shown.length) return;
  const at = shown.findIndex((s) => s.id === state.selected);
  // Without a selection: the first segment after, or the last before, what is being watched.
  let k = at + direction;
  if (at < 0) k = direction > 0 ? after(starts, player.time - 1e-3) : after(starts, player.time - 1e-3) - 1;
  select(shown[Math.min(Math.max(0, k), shown.length - 1)]);
}

function covered(list) {
  let total = 0, until = -1;
  for (const s of list) {
    total += Math.max(0, s.end - Math.max(s.start, until));
    until = Math.max(until, s.end);
  }
  return total;
}

// What a table row says of each class; in order of the labels.
function summary() {
  const rows = data.labels.map((name, label) => ({ name, label, segments: [], best: -Infinity, truth: 0 }));
  for (const s of inTime) {
    if (s.score < state.threshold) continue;
    rows[s.label].segments.push(s);
    rows[s.label].best = Math.max(rows[s.label].best, s.score);
  }
  for (const t of truth) rows[t.label].truth += 1;
  return rows.map((r) => ({ ...r, count: r.segments.length, seconds: covered(r.segments) }));
}

function cell(row, content, name) {
  const td = document.createElement("td");
  if (name) td.className = name;
  td.append(content);
  row.append(td);
}

function fillSummary() {
  const body = byId("summary").tBodies[0];
  const focus = document.activeElement?.dataset?.label;
  const kind = document.activeElement?.tagName;
  body.replaceChildren();
  for (const r of summary().sort((a, b) => b.count - a.count || a.name.localeCompare(b.name))) {
    const row = document.createElement("tr"), box = document.createElement("input"), jump = document.createElement("button");
    const dot = document.createElement("span");
    box.type = "checkbox"; box.checked = !state.hidden.has(r.label); box.dataset.label = r.label;
    box.setAttribute("aria-label", `Show ${r.name}`);
    box.addEventListener("change", () => {
      if (box.checked) state.hidden.delete(r.label); else state.hidden.add(r.label);
      refresh();
    });
    jump.type = "button"; jump.title = "Go to the surest segment"; jump.dataset.label = r.label; jump.disabled = !r.count;
    dot.className = "dot"; dot.style.background = classColour(r.label);
    jump.append(dot, r.name);
    jump.addEventListener("click", () => {
      state.hidden.delete(r.label);
      refresh();
      select(r.segments.reduce((best, s) => (s.score > best.score ? s : best)));
    });
    row.className = box.checked ? "" : "off";
    cell(row, box); cell(row, jump); cell(row, String(r.count));
    cell(row, r.count ? clockText(r.seconds) : ""); cell(row, r.count ? r.best.toPrecision(2) : ""); cell(row, String(r.truth), "truth");
    body.append(row);
    if (String(r.label) === focus) (kind === "INPUT" ? box : jump).focus();
  }
  byId("all").checked = state.hidden.size === 0;
}

function exported(kind) {
  const best = [...shown].sort((a, b) => b.score - a.score);
  if (kind === "csv") {
    const quote = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const tracked = best.some((s) => s.track !== null);
    const lines = best.map((s) => [quote(data.id), s.start.toFixed(3), s.end.toFixed(3), quote(data.labels[s.label]), s.score,
      ...(tracked ? [s.track ?? ""] : [])].join(","));
    return ["video,start_s,end_s,label,score" + (tracked ? ",track" : ""), ...lines, ""].join("\n");
  }
  const results = best.map((s) => ({ label: data.labels[s.label], score: s.score, segment: [s.start, s.end],
    ...(s.track === null ? {} : { track: s.track }) }));
  const document_ = { version: data.version, results: { [data.id]: results }, external_data: {},
    videos: { [data.id]: data.info },
    detector: { ...data.detector, report_filter: { min_score: state.threshold, hidden: [...state.hidden].map((k) => data.labels[k]) } } };
  if (data.people.length) {
    document_.people = { [data.id]: data.people.map(([time_s, track, x1, y1, x2, y2, box_score, actions]) => ({ time_s, track,
      box: [x1, y1, x2, y2], box_score, actions: actions.filter(([label, score]) => score >= state.threshold && !state.hidden.has(label))
        .map(([label, score]) => ({ label: data.labels[label], score })) })) };
  }
  return JSON.stringify(document_, null, 1) + "\n";
}

function download(kind) {
  const link = document.createElement("a");
  const address = URL.createObjectURL(new Blob([exported(kind)], { type: kind === "csv" ? "text/csv" : "application/json" }));
  link.href = address; link.download = `${data.id}.filtered.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

function onKey(event) {
  const typing = event.target.matches?.('input[type="number"], select, textarea');
  if (event.ctrlKey || event.metaKey || event.altKey || typing || byId("help").open) return;
  const pressing = event.target.matches?.('button, input[type="checkbox"]'), sliding = event.target.matches?.('input[type="range"]');
  const frame = 1 / (data.fps || 25), range = data.score_range[1] - data.score_range[0];
  const keys = {
    " ": () => player.toggle(), ArrowLeft: () => player.seek(player.time - (event.shiftKey ? 10 : 1)),
    ArrowRight: () => player.seek(player.time + (event.shiftKey ? 10 : 1)),
    ",": () => player.seek(player.time - frame), ".": () => player.seek(player.time + frame),
    j: () => step(1), k: () => step(-1), "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), _: () => zoom(2), 0: () => show(0, duration),
    "[": () => setThreshold(state.threshold - range / 50), "]": () => setThreshold(state.threshold + range / 50),
    "?": () => byId("help").showModal(),
  };
  if (!keys[event.key] || (pressing && event.key === " ") || (sliding && event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  event.stopPropagation();
  keys[event.key]();
}

function listenToLanes() {
  let from = null, moved = false;
  canvas.addEventListener("pointerdown", (event) => { from = { x: event.clientX, start: view.from, end: view.to }; moved = false; });
  window.addEventListener("pointermove", (event) => {
    if (!from) return;
    const shift = ((event.clientX - from.x) / (view.width - view.gutter)) * (from.end - from.start);
    if (Math.abs(event.clientX - from.x) > 4) moved = true;
    if (moved) show(from.start - shift, from.end - shift);
  });
  window.addEventListener("pointerup", () => { from = null; });
  canvas.addEventListener("click", (event) => {
    if (moved) return;
    const s = segmentAt(event.offsetX, event.offsetY);
    if (s) select(s, false);
    if (event.offsetX >= view.gutter) player.seek(xToTime(event.offsetX));
    else if (s) player.seek(s.start);
  });
  canvas.addEventListener("dblclick", (event) => {
    const s = segmentAt(event.offsetX, event.offsetY);
    if (s) { show(s.start - (s.end - s.start), s.end + (s.end - s.start)); player.seek(s.start); }
  });
  canvas.addEventListener("mousemove", (event) => {
    const s = from ? null : segmentAt(event.offsetX, event.offsetY);
    tip.hidden = !s;
    if (!s) return;
    tip.textContent = `${data.labels[s.label]}  ${clockText(s.start)} to ${clockText(s.end)}, score ${s.score.toPrecision(3)}${s.track === null ? "" : `, person ${s.track}`}`;
    tip.style.transform = `translate(${Math.min(event.clientX + 12, window.innerWidth - 350)}px, ${event.clientY + 16}px)`;
  });
  canvas.addEventListener("mouseleave", () => { tip.hidden = true; });
  const wheel = (event) => {
    const sideways = event.shiftKey ? event.deltaY : event.deltaX;
    if (event.ctrlKey || event.metaKey || event.currentTarget === overview) zoom(Math.exp(event.deltaY * 0.0022), event.currentTarget === overview ? player.time : xToTime(event.offsetX));
    else if (sideways) {
      const shift = (sideways / view.width) * (view.to - view.from);
      show(view.from + shift, view.to + shift);
    } else return;
    event.preventDefault();
  };
  canvas.addEventListener("wheel", wheel, { passive: false });
  overview.addEventListener("wheel", wheel, { passive: false });
  const jump = (event) => {
    if (event.buttons !== 1) return;
    const time = (event.offsetX / overview.clientWidth) * duration, half = (view.to - view.from) / 2;
    if (view.to - view.from < duration * 0.999) show(time - half, time + half);
    player.seek(time);
  };
  overview.addEventListener("pointerdown", jump);
  overview.addEventListener("pointermove", jump);
  scroller.addEventListener("scroll", redraw);
}

function start() {
  readColours();
  const range = byId("threshold"), number = byId("threshold-number");
  [range.min, range.max] = data.score_range;
  let sliding = false; // a drag sends many events a frame; one refresh is enough
  range.addEventListener("input", () => {
    if (!sliding) requestAnimationFrame(() => { sliding = false; setThreshold(Number(range.value), "slider"); });
    sliding = true;
  });
  number.addEventListener("change", () => setThreshold(Number(number.value), "number"));
  byId("group").value = state.group;
  byId("group").querySelector('[value="person"]').disabled = !segments.some((s) => s.track !== null);
  byId("group").addEventListener("change", (event) => { state.group = event.target.value; scroller.scrollTop = 0; refresh(); });
  byId("all").addEventListener("change", (event) => {
    state.hidden = new Set(event.target.checked ? [] : data.labels.keys());
    refresh();
  });
  document.body.classList.toggle("no-truth", !truth.length);
  byId("truth-key").hidden = !truth.length;
  byId("facts").textContent = data.facts;
  for (const text of data.notices) notice(text);
  const actions = { previous: () => step(-1), next: () => step(1), play: () => player.toggle(), "zoom-in": () => zoom(0.5), "zoom-out": () => zoom(2),
    "zoom-all": () => show(0, duration), "export-json": () => download("json"), "export-csv": () => download("csv"), "help-button": () => byId("help").showModal() };
  for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", action);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const repaint = () => {
    readColours();
    byId("theme").textContent = isDark() ? "Light" : "Dark";
    byId("theme").setAttribute("aria-pressed", String(isDark()));
    refresh();
  };
  byId("theme").addEventListener("click", () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; repaint(); });
  dark.addEventListener("change", repaint);
  // Before the player's own controls see the key, or space would toggle twice.
  window.addEventListener("keydown", onKey, true);
  new ResizeObserver(() => { layout(); redraw(); onTime(); }).observe(document.body);
  listenToLanes();
  setThreshold(state.threshold);
  repaint();
  openVideo();
}

start();
// What a script around the page may ask; the tests do.
window.vidtadReport = Object.freeze({
  get time() { return player.time; }, get playing() { return player.playing; }, get hasVideo() { return player.real; },
  get view() { return { ...view }; }, get work() { return { ...work }; }, get threshold() { return state.threshold; },
  get shown() { return shown.map((s) => s.id); }, get selected() { return state.selected; }, get lanes() { return lanes.map((l) => l.name); },
  seek: (time) => player.seek(time), place: placeOf, show, persons: () => personsAt(player.time), area: pictureArea, exported, summary, setThreshold,
});
