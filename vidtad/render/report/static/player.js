// The video and its clock. Without a playable video the clock runs on its own, so the timeline still works.
const video = byId("video"), blank = byId("blank"), overlay = byId("boxes"), boxPen = overlay.getContext("2d");

const player = {
  real: false,
  held: 0, // time of the clock without a video
  since: null, // when that clock was started
  // Seconds from the first frame; a container may start its clock elsewhere.
  get time() {
    if (player.real) return Math.max(0, video.currentTime - data.offset);
    const run = player.since === null ? 0 : (performance.now() - player.since) / 1000;
    return Math.min(duration, player.held + run);
  },
  get playing() { return player.real ? !video.paused && !video.ended : player.since !== null; },
  seek(time) {
    const wanted = Math.min(Math.max(0, time), duration);
    // A hair later: containers round times to a millisecond, and that must not land on the frame before.
    if (player.real) video.currentTime = wanted + data.offset + (wanted > 0 ? Math.min(1e-3, 0.25 / (data.fps || 25)) : 0);
    else { player.held = wanted; if (player.since !== null) player.since = performance.now(); }
    onTime();
  },
  toggle() {
    if (player.real) { if (player.playing) video.pause(); else video.play().catch(() => {}); }
    else if (player.since === null) {
      if (player.time >= duration) player.held = 0;
      player.since = performance.now(); tick();
    } else { player.held = player.time; player.since = null; }
    onTime();
  },
};

function tick() {
  onTime();
  if (!player.real && player.time >= duration) { player.held = duration; player.since = null; onTime(); }
  if (player.playing) requestAnimationFrame(tick);
}

function useBlank(reason) {
  player.real = false;
  video.hidden = true;
  blank.hidden = false;
  document.querySelector("main").classList.toggle("bare", tracks.size === 0);
  if (reason) notice(reason);
  onTime();
}

function notice(text) {
  const place = byId("notice");
  place.textContent = place.textContent ? `${place.textContent} ${text}` : text;
  place.hidden = false;
}

function openVideo() {
  if (!data.video && !data.embedded) { useBlank(""); return; }
  video.addEventListener("loadedmetadata", () => {
    player.real = true; redraw(); onTime();
  });
  video.addEventListener("error", () => useBlank(
    `The video ${data.video || ""} cannot be opened here (moved, or of a kind this browser does not play); the timeline works without it.`));
  for (const event of ["timeupdate", "seeking", "seeked", "pause"]) video.addEventListener(event, onTime);
  video.addEventListener("play", tick);
  if (data.embedded) {
    const bytes = Uint8Array.from(atob(byId("embedded").textContent.trim()), (c) => c.charCodeAt(0));
    video.src = URL.createObjectURL(new Blob([bytes], { type: data.embedded }));
  } else video.src = data.video;
}

// The part of the stage that shows the picture: the rest is black bars.
function pictureArea() {
  const w = overlay.clientWidth, h = overlay.clientHeight;
  const vw = (player.real && video.videoWidth) || data.width || 16, vh = (player.real && video.videoHeight) || data.height || 9;
  const scale = Math.min(w / vw, h / vh);
  return { left: (w - vw * scale) / 2, top: (h - vh * scale) / 2, width: vw * scale, height: vh * scale };
}

function drawBoxes() {
  fitCanvas(overlay, boxPen, overlay.clientWidth, overlay.clientHeight);
  boxPen.clearRect(0, 0, overlay.clientWidth, overlay.clientHeight);
  if (!player.real && !tracks.size) return;
  const area = pictureArea();
  boxPen.font = '600 12px system-ui, "DejaVu Sans", sans-serif';
  boxPen.textBaseline = "middle";
  for (const { track, box, actions } of personsAt(player.time)) {
    const x = area.left + box[0] * area.width, y = area.top + box[1] * area.height;
    const w = (box[2] - box[0]) * area.width, h = (box[3] - box[1]) * area.height;
    const colour = `hsl(${(track * 137.508 + 40) % 360} 85% 60%)`;
    boxPen.strokeStyle = colour; boxPen.lineWidth = 2;
    boxPen.strokeRect(x, y, w, h);
    const lines = [`person ${track}`, ...actions.slice(0, 3).map(([label, score]) => `${data.labels[label]} ${score.toFixed(2)}`)];
    lines.forEach((line, k) => {
      const width = boxPen.measureText(line).width + 8, top = Math.max(0, y - 17 * lines.length) + 17 * k;
      boxPen.fillStyle = "rgb(0 0 0 / .68)"; boxPen.fillRect(x - 1, top, width, 17);
      boxPen.fillStyle = k ? "#fff" : colour; boxPen.fillText(line, x + 3, top + 9);
    });
  }
}

let lastNow = "";
function onTime() {
  const time = player.time;
  byId("clock").textContent = clockText(time);
  byId("play").textContent = player.playing ? "Pause" : "Play";
  const active = activeAt(time).slice(0, 6);
  const key = active.map((s) => s.id).join();
  if (key !== lastNow) {
    lastNow = key;
    byId("now").replaceChildren(...active.map((s) => {
      const chip = document.createElement("span"), dot = document.createElement("span");
      chip.className = "chip"; dot.className = "dot"; dot.style.background = classColour(s.label);
      chip.append(dot, `${s.track === null ? "" : `person ${s.track}: `}${data.labels[s.label]}`);
      return chip;
    }));
  }
  if (player.playing && time > view.to && view.to < duration) reveal(time);
  drawPlayhead();
  drawBoxes();
}
