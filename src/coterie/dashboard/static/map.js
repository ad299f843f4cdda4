// The latent map: people as points, drawn by WebGL 2 from one binary file (see coterie/map_file.py).
// What is searched for and chosen is the server's answer; this only draws and moves.

const canvas = document.getElementById("map");
const gl = canvas?.getContext("webgl2", { antialias: false, premultipliedAlpha: true });

const VERTEX = `#version 300 es
in vec2 was; in vec2 now; in float kind; in float known;
uniform vec2 scale; uniform vec2 shift; uniform float part; uniform float size;
uniform vec4 colours[8];
out vec4 colour;
void main() {
  vec4 own = colours[int(kind)];
  colour = own * mix(known, 1.0, part);
  gl_Position = own.a > 0.0 ? vec4(mix(was, now, part) * scale + shift, 0, 1) : vec4(2, 2, 2, 1);
  gl_PointSize = size;
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
in vec4 colour; uniform float diamond; out vec4 drawn;
void main() {
  vec2 at = abs(gl_PointCoord * 2.0 - 1.0);
  float far = mix(length(at), at.x + at.y, diamond);
  if (far > 1.0) discard;
  drawn = colour;
}`;

const MOVE_MS = 900;
const still = matchMedia("(prefers-reduced-motion: reduce)");
const mark = document.getElementById("map-mark");
const tip = document.getElementById("map-tip");
const told = () => document.getElementById("map-told");

// A map: header, layouts of places, numbers of items and cohorts, all read in place.
function read(buffer) {
  const length = new DataView(buffer).getUint32(8, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 12, length)));
  let at = 12 + length;
  const places = (n) => {
    const found = new Float32Array(buffer, at, 2 * n);
    at += found.byteLength;
    return found;
  };
  const layouts = head.layouts.map((one) => ({
    users: places(head.users),
    items: one.has_items ? places(head.items) : null,
  }));
  const counts = new Uint32Array(buffer, at, head.users);
  return { head, layouts, counts, cohorts: new Uint8Array(buffer, at + counts.byteLength, head.users) };
}

const files = new Map();

function asked(path, key) {
  const address = `${path}?of=${encodeURIComponent(key)}`;
  if (!files.has(address)) files.set(address, fetch(address));
  return files.get(address);
}

const loaded = new Map();

async function mapOf(key) {
  if (!loaded.has(key)) loaded.set(key, read(await (await asked("/map/points", key)).arrayBuffer()));
  return loaded.get(key);
}

const namesRead = new Map();

async function namesOf(key) {
  if (!namesRead.has(key)) namesRead.set(key, await (await asked("/map/names", key)).json());
  return namesRead.get(key);
}

// What is drawn: the chosen layout, and where each of its people was in the one before.
const shown = { key: null, layout: null, map: null, was: null, known: null, names: null, part: 1 };
const view = { x: 0, y: 0, zoom: 1, fit: 1, width: 1, height: 1, ratio: 1 };
const layer = { on: [true, true, true, true, true], items: false };
let program, buffers, colours, places, asking = false;

function compiled() {
  const made = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  ["was", "now", "kind", "known"].forEach((name, at) => gl.bindAttribLocation(made, at, name));
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  return made;
}

function start() {
  program = compiled();
  gl.useProgram(program);
  places = Object.fromEntries(
    ["scale", "shift", "part", "size", "colours", "diamond"].map((one) => [one, gl.getUniformLocation(program, one)]),
  );
  buffers = ["was", "now", "kind", "known"].map(() => gl.createBuffer());
  for (const at of buffers.keys()) gl.enableVertexAttribArray(at);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
}

function fill(at, values, width, kind = gl.FLOAT) {
  gl.bindBuffer(gl.ARRAY_BUFFER, buffers[at]);
  gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
  gl.vertexAttribPointer(at, width, kind, false, 0, 0);
}

// Titles lie after the people, as a kind of their own.
const TITLES = 7;

function upload() {
  const { users, items } = shown.layout;
  const n = users.length / 2, m = items ? items.length / 2 : 0;
  const now = new Float32Array(2 * (n + m)), was = new Float32Array(2 * (n + m));
  now.set(users);
  was.set(shown.was ?? users);
  const kinds = new Uint8Array(n + m).fill(TITLES);
  kinds.set(shown.map.cohorts);
  const known = new Uint8Array(n + m).fill(0);
  known.set(shown.known ?? new Uint8Array(n).fill(1));
  if (items) [now, was].forEach((one) => one.set(items, 2 * n));
  fill(0, was, 2);
  fill(1, now, 2);
  fill(2, kinds, 1, gl.UNSIGNED_BYTE);
  fill(3, known, 1, gl.UNSIGNED_BYTE);
}

// Colours are the style sheet's, light or dark.
function paint() {
  const style = getComputedStyle(document.documentElement);
  const names = ["--s4", "--s1", "--s3", "--s2", "--s5", "--s6", "--s6", "--ink"];
  const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  colours = names.map((name) => {
    probe.fillStyle = style.getPropertyValue(name).trim();
    probe.fillRect(0, 0, 1, 1);
    return [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3).map((one) => one / 255);
  });
  draw();
}

function measure() {
  const box = canvas.parentElement.getBoundingClientRect();
  view.ratio = Math.min(devicePixelRatio || 1, 2);
  [view.width, view.height] = [box.width, box.height];
  canvas.width = Math.round(box.width * view.ratio);
  canvas.height = Math.round(box.height * view.ratio);
}

// Everybody but the outermost, with room around.
function fitted() {
  const { users } = shown.layout;
  const ends = [0, 1].map((axis) => {
    const values = Float32Array.from({ length: users.length / 2 }, (_, n) => users[2 * n + axis]).sort();
    const at = (share) => values[Math.min(values.length - 1, Math.floor(share * values.length))];
    return [at(0.002), at(0.998)];
  });
  const room = [view.width, view.height].map((one) => Math.max(one - 48, 40));
  const zooms = ends.map(([low, high], axis) => room[axis] / Math.max(high - low, 1e-9));
  return { x: (ends[0][0] + ends[0][1]) / 2, y: (ends[1][0] + ends[1][1]) / 2, zoom: Math.min(...zooms) };
}

const people = () => shown.layout.users.length / 2;
const closer = () => view.zoom / view.fit;

function draw() {
  if (asking || !shown.layout || !colours) return;
  asking = true;
  requestAnimationFrame(render);
}

function render(time) {
  asking = false;
  step(time);
  gl.viewport(0, 0, canvas.width, canvas.height);
  gl.clear(gl.COLOR_BUFFER_BIT);
  const scale = [2 * view.zoom / view.width, 2 * view.zoom / view.height];
  gl.uniform2fv(places.scale, scale);
  gl.uniform2f(places.shift, -view.x * scale[0], -view.y * scale[1]);
  gl.uniform1f(places.part, shown.part);
  const many = people(), base = many > 20000 ? 2.2 : many > 3000 ? 3.4 : 5;
  const opaque = Math.min(0.9, (many > 20000 ? 0.45 : 0.7) * closer() ** 0.3);
  const all = colours.map((one, kind) => {
    const alpha = kind === TITLES ? 0.8 * layer.items : opaque * (layer.on[kind] ?? true);
    return [...one.map((part) => part * alpha), alpha];
  });
  gl.uniform4fv(places.colours, all.flat());
  const size = Math.max(1.5, Math.min(9, base * closer() ** 0.4));
  gl.uniform1f(places.size, size * view.ratio);
  gl.uniform1f(places.diamond, 0);
  gl.drawArrays(gl.POINTS, 0, many);
  if (layer.items && shown.layout.items) {
    gl.uniform1f(places.size, (size + 5) * view.ratio);
    gl.uniform1f(places.diamond, 1);
    gl.drawArrays(gl.POINTS, many, shown.layout.items.length / 2);
  }
  placeMark();
  canvas.dataset.view = [view.x, view.y, closer()].map((one) => one.toFixed(4)).join(" ");
  canvas.dataset.drawn = `${many} ${shown.key}`;
  canvas.dataset.part = shown.part.toFixed(2);
}

// What moves by itself: people to their new places, the view to what was found.
let moving = null, flying = null;

function step(time) {
  if (moving) {
    moving.began ??= time;
    shown.part = eased((time - moving.began) / MOVE_MS);
    if (shown.part >= 1) moving = null;
  }
  if (flying) {
    flying.began ??= time;
    const part = eased((time - flying.began) / MOVE_MS);
    for (const name of ["x", "y"]) view[name] = flying.from[name] + part * (flying.to[name] - flying.from[name]);
    view.zoom = flying.from.zoom * (flying.to.zoom / flying.from.zoom) ** part;
    if (part >= 1) flying = null;
  }
  if (moving || flying) draw();
}

const eased = (part) => (part >= 1 ? 1 : part * part * (3 - 2 * part));

function fly(to) {
  flying = { from: { ...view }, to };
  if (still.matches) {
    Object.assign(view, to);
    flying = null;
  }
  draw();
}

// What was found, at its place of now.
let found = null;

function placeOf({ kind, at }) {
  const from = kind === "person" ? shown.layout.users : shown.layout.items;
  if (!from || 2 * at >= from.length) return null;
  const now = [from[2 * at], from[2 * at + 1]];
  if (kind !== "person" || !shown.was || shown.part >= 1) return now;
  return now.map((one, axis) => shown.was[2 * at + axis] + shown.part * (one - shown.was[2 * at + axis]));
}

const onScreen = ([x, y]) => [view.width / 2 + (x - view.x) * view.zoom, view.height / 2 - (y - view.y) * view.zoom];

function placeMark() {
  const place = found && placeOf(found);
  mark.hidden = !place;
  if (!place) return;
  const [left, top] = onScreen(place);
  mark.style.left = `${left}px`;
  mark.style.top = `${top}px`;
}

function flyToFound() {
  const at = document.getElementById("map-found").dataset;
  const before = found;
  found = at.kind ? { kind: at.kind, at: Number(at.at) } : null;
  if (!found) return draw();
  if (found.kind === "title") layer.items = true;
  mark.querySelector("span").textContent = (document.querySelector("#map-found a") ?? document.getElementById("map-found"))?.textContent.trim().slice(0, 60) ?? "";
  mark.dataset.marked = `${found.kind} ${found.at}`;
  const place = placeOf(found);
  if (place && (before?.at !== found.at || before?.kind !== found.kind))
    fly({ x: place[0], y: place[1], zoom: Math.max(view.zoom, 4 * view.fit) });
  else draw();
}

// Another layout: whoever is in both goes from the old place to the new one, others appear.
async function show() {
  const value = told().dataset.show;
  const layout = Number(value.slice(0, value.indexOf("/"))), key = value.slice(value.indexOf("/") + 1);
  const map = await mapOf(key);
  if (shown.layout === map.layouts[layout]) return;
  const before = shown.layout && { ...shown };
  const [was, known] = before ? await carried(before, key, map, layout) : [null, null];
  if (told().dataset.show !== value) return;
  Object.assign(shown, { key, map, layout: map.layouts[layout], was, known, names: null, part: before && !still.matches ? 0 : 1 });
  upload();
  if (!before) {
    Object.assign(view, fitted());
    view.fit = view.zoom;
  }
  moving = shown.part < 1 ? {} : null;
  draw();
  namesOf(key).then((names) => shown.key === key && (shown.names = names));
}

async function carried(before, key, map, layout) {
  if (before.key === key) return [before.layout.users, null];
  const [old, names] = await Promise.all([namesOf(before.key), namesOf(key)]);
  const places = new Map(old.users.map((id, at) => [id, at]));
  const was = map.layouts[layout].users.slice(), known = new Uint8Array(names.users.length);
  names.users.forEach((id, at) => {
    const there = places.get(id);
    if (there === undefined) return;
    known[at] = 1;
    was.set(before.layout.users.subarray(2 * there, 2 * there + 2), 2 * at);
  });
  return [was, known];
}

// Who is under the pointer.
function nearest(left, top) {
  const reach = 10 / view.zoom;
  const x = view.x + (left - view.width / 2) / view.zoom, y = view.y - (top - view.height / 2) / view.zoom;
  let best = reach * reach, who = null;
  const look = (points, kind, seen) => {
    for (let at = 0; 2 * at < points.length; at++) {
      const dx = points[2 * at] - x, dy = points[2 * at + 1] - y, far = dx * dx + dy * dy;
      if (far < best && seen(at)) [best, who] = [far, { kind, at }];
    }
  };
  if (layer.items && shown.layout.items) look(shown.layout.items, "title", () => true);
  if (!who) look(shown.layout.users, "person", (at) => layer.on[shown.map.cohorts[at]]);
  return who;
}

function pageOf({ kind, at }) {
  const path = kind === "person" ? canvas.dataset.people : canvas.dataset.titles;
  const ids = kind === "person" ? shown.names.users : shown.names.items;
  return path && `${path}?id=${encodeURIComponent(ids[at])}`;
}

function label({ kind, at }) {
  if (kind === "title") return shown.names.titles[at] ?? String(shown.names.items[at]);
  return `${String(shown.names.users[at]).slice(0, 60)} · ${shown.map.counts[at].toLocaleString("en")} titles`;
}

function tell(who, left, top, asLink) {
  canvas.classList.toggle("over", who !== null);
  tip.hidden = !who || !shown.names;
  if (tip.hidden) return;
  const address = asLink && pageOf(who);
  const text = Object.assign(document.createElement(address ? "a" : "span"), { textContent: label(who), dir: "auto" });
  if (address) text.href = address;
  tip.replaceChildren(text);
  tip.style.pointerEvents = address ? "auto" : "none";
  const right = left > view.width / 2;
  tip.style.left = right ? "" : `${left + 12}px`;
  tip.style.right = right ? `${view.width - left + 12}px` : "";
  tip.style.top = `${Math.min(top + 12, view.height - 34)}px`;
}

const at = (event) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

function zoomBy(factor, left = view.width / 2, top = view.height / 2) {
  flying = null;
  const zoom = Math.max(view.fit / 4, Math.min(view.fit * 400, view.zoom * factor));
  const dx = (left - view.width / 2) * (1 / view.zoom - 1 / zoom), dy = (top - view.height / 2) * (1 / view.zoom - 1 / zoom);
  view.x += dx;
  view.y -= dy;
  view.zoom = zoom;
  draw();
}

function panBy(dx, dy) {
  flying = null;
  view.x -= dx / view.zoom;
  view.y += dy / view.zoom;
  draw();
}

const KEYS = {
  "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5),
  0: () => fly(fitted()),
  ArrowLeft: () => panBy(60, 0), ArrowRight: () => panBy(-60, 0),
  ArrowUp: () => panBy(0, 60), ArrowDown: () => panBy(0, -60),
};

function listen() {
  const down = new Map();
  let moved = 0;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, at(event));
    if (down.size === 1) moved = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const place = at(event), before = down.get(event.pointerId);
    if (!before) return event.pointerType === "mouse" && tell(nearest(...place), ...place, false);
    tip.hidden = true;
    if (down.size === 2) {
      const other = [...down].find(([id]) => id !== event.pointerId)[1];
      const apart = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]);
      zoomBy(apart(place) / Math.max(apart(before), 1), (place[0] + other[0]) / 2, (place[1] + other[1]) / 2);
      moved = 99;
    } else {
      panBy(place[0] - before[0], place[1] - before[1]);
      moved += Math.hypot(place[0] - before[0], place[1] - before[1]);
    }
    down.set(event.pointerId, place);
  });
  const up = (event) => {
    const last = down.get(event.pointerId);
    down.delete(event.pointerId);
    if (event.type !== "pointerup" || !last || moved > 4 || down.size) return;
    const who = nearest(...last), address = who && shown.names && pageOf(who);
    if (event.pointerType === "mouse" && address) location.assign(address);
    else tell(who, ...last, true);
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && tell(null));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...at(event));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    if (!KEYS[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  document.querySelector(".map-buttons").addEventListener("click", (event) => KEYS[event.target.dataset.key]?.());
}

// The legend is a part that the server sends anew; what was switched off stays off.
function legend() {
  for (const box of told().querySelectorAll("[data-cohort]")) {
    box.disabled = false;
    box.checked = layer.on[Number(box.dataset.cohort)];
  }
  const titles = told().querySelector("[data-items]");
  if (titles) Object.assign(titles, { disabled: false, checked: layer.items });
}

function react() {
  document.addEventListener("change", ({ target }) => {
    if (target.dataset.cohort) layer.on[Number(target.dataset.cohort)] = target.checked;
    else if ("items" in target.dataset) layer.items = target.checked;
    else return;
    draw();
  });
  document.addEventListener("swapped", async () => {
    await show();
    flyToFound();
    legend();
  });
  document.addEventListener("theme", paint);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  new ResizeObserver(() => {
    measure();
    draw();
  }).observe(canvas.parentElement);
  canvas.addEventListener("webglcontextlost", plain);
}

function plain() {
  canvas.hidden = true;
  document.getElementById("map-drawing").hidden = false;
  document.getElementById("map-plain").hidden = false;
}

async function begin() {
  start();
  measure();
  await show();
  paint();
  canvas.hidden = false;
  document.getElementById("map-drawing").hidden = true;
  document.querySelector(".map-buttons").hidden = false;
  listen();
  react();
  flyToFound();
  legend();
  requestAnimationFrame(() => requestAnimationFrame(() => performance.mark("map-drawn")));
}

if (canvas && gl) begin();
else if (canvas) plain();
