// The page: which slide, which layers, which colours; and what the mouse points at.

import { DeepZoom, steer } from "./deepzoom.js";
import { boxAt, colourAt, coloured, drawBoxes, drawHatch, drawPicture, stencil } from "./layers.js";
import { goToPlace, linkTo, placeIn } from "./link.js";
import { by, describe, describeBox, drawBar, drawScale, length, listSlides, listTiles, markSlide, say } from "./panel.js";

const TOP = 5;
const shown = { facts: null, attention: null, colours: null, unseen: null, lit: null, maps: [] };
const view = new DeepZoom(by("view"), drawLayers);
steer(view);

function drawLayers(context) {
  const { facts } = shown;
  if (shown.unseen && by("show-unseen").checked) drawHatch(context, view, shown.unseen, facts.unseen);
  if (shown.colours) drawPicture(context, view, shown.colours, facts.attention.place, by("opacity").value / 100, false);
  if (by("show-boxes").checked) drawBoxes(context, view, facts.boxes, TOP, shown.lit);
  drawBar(view, facts.mpp);
  drawSmall();
  noteAddress();
}

// The address follows the view, so that it can be copied or kept at any moment.
let noting = 0;
function noteAddress() {
  clearTimeout(noting);
  noting = setTimeout(() => {
    const [x, y] = view.toSlide(view.width / 2, view.height / 2);
    history.replaceState(null, "", linkTo(shown.facts.name, x, y, view.scale));
  }, 250);
}

function drawSmall() {
  const canvas = by("map-view");
  canvas.hidden = view.scale < 1.1 * view.smallest;
  const [w, h] = shown.facts.extent;
  const share = 150 / Math.max(w, h);
  Object.assign(canvas, { width: Math.max(1, w * share), height: Math.max(1, h * share) });
  const context = canvas.getContext("2d");
  if (view.overview) context.drawImage(view.overview, 0, 0, canvas.width, canvas.height);
  Object.assign(context, { strokeStyle: "#c8102e", lineWidth: 1.5 });
  context.strokeRect(view.x * share, view.y * share, (view.width / view.scale) * share, (view.height / view.scale) * share);
}

function picture(url) {
  return new Promise((resolve) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => resolve(null);
    image.src = url;
  });
}

function colour() {
  const map = shown.maps.find((each) => each.name === by("map").value);
  shown.colours = shown.attention && coloured(shown.attention, map.colours);
  drawScale(shown.facts.attention, shown.facts.ticks, map.colours, colourAt);
  view.redraw();
}

let asked = 0;

async function got(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

async function choose(number, place = null) {
  const mine = asked += 1;
  const base = `/slides/${number}`;
  Object.assign(document.body.dataset, { ready: "", slide: "" });
  markSlide(number);
  const [overview, attention] = [picture(`${base}/overview.jpg`), picture(`${base}/attention.png`)];
  try {
    const facts = await got(`${base}/facts.json`);
    const pictures = [await overview, facts.attention && await attention];
    if (mine !== asked) return;
    Object.assign(shown, { facts, base, attention: pictures[1], unseen: null, lit: null });
    show(facts, base, pictures[0]);
    if (place) goToPlace(view, place);
    document.body.dataset.ready = String(number);
    const { coarsest, trouble } = await got(`${base}/slide.json`);
    if (mine !== asked) return;
    view.slide.coarsest = coarsest;
    say(trouble && `The slide itself cannot be shown, only its overview. ${trouble}`);
    view.redraw();
    requestAnimationFrame(() => requestAnimationFrame(() => { document.body.dataset.slide = String(number); }));
  } catch (error) {
    if (mine === asked) say(error.message);
  }
}

function show(facts, base, overview) {
  say("");
  describe(facts);
  listTiles(facts.boxes, TOP, facts.mpp, goTo);
  view.show({ ...facts, coarsest: null, url: (level, col, row) => `${base}/tiles/${level}/${col}_${row}.jpg` }, overview);
  colour();
  markUnseen();
}

async function markUnseen() {
  const { facts, base } = shown;
  if (by("show-unseen").checked && facts.unseen && !shown.unseen) {
    const mask = await picture(`${base}/unseen.png`);
    if (mask && facts === shown.facts) shown.unseen = stencil(mask);
  }
  view.redraw();
}

function goTo(box) {
  shown.lit = box;
  const room = 0.4 * Math.min(view.width / box.w, view.height / box.h);
  view.centre(box.x + box.w / 2, box.y + box.h / 2, room);
  for (const button of by("tiles").querySelectorAll("button")) {
    button.setAttribute("aria-current", String(Number(button.firstChild.textContent) === box.rank));
  }
}

function pointAt(event) {
  const { facts } = shown;
  if (!facts) return;
  const box = by("view").getBoundingClientRect();
  const [left, top] = [event.clientX - box.left, event.clientY - box.top];
  const [x, y] = view.toSlide(left, top);
  const inside = x >= 0 && y >= 0 && x < facts.extent[0] && y < facts.extent[1];
  by("where").textContent = inside ? `x ${Math.floor(x)}, y ${Math.floor(y)} px · ${length(x * facts.mpp)}, ${length(y * facts.mpp)}` : "";
  const over = by("show-boxes").checked ? boxAt(facts.boxes, x, y) : null;
  by("tip").hidden = !over;
  if (over) {
    by("tip").textContent = describeBox(over, facts.mpp);
    by("tip").style.left = `${Math.min(left + 14, view.width - by("tip").offsetWidth - 6)}px`;
    by("tip").style.top = `${Math.min(top + 14, view.height - by("tip").offsetHeight - 6)}px`;
  }
  if (over !== shown.lit) { shown.lit = over; view.redraw(); }
}

by("view").addEventListener("pointermove", pointAt);
by("view").addEventListener("pointerleave", () => { by("tip").hidden = true; by("where").textContent = ""; });
by("view").addEventListener("keydown", (event) => {
  const ranked = shown.facts?.boxes.filter((each) => each.rank !== null) ?? [];
  const step = { n: 1, p: -1 }[event.key.toLowerCase()];
  if (!step || !ranked.length) return;
  const at = ranked.indexOf(shown.lit);
  goTo(ranked[at < 0 ? 0 : (at + step + ranked.length) % ranked.length]);
});
by("map-view").addEventListener("click", (event) => {
  const box = by("map-view").getBoundingClientRect();
  const [w, h] = shown.facts.extent;
  view.centre(((event.clientX - box.left) / box.width) * w, ((event.clientY - box.top) / box.height) * h, view.scale);
});
by("opacity").addEventListener("input", () => view.redraw());
by("map").addEventListener("change", colour);
by("show-boxes").addEventListener("change", () => view.redraw());
by("show-unseen").addEventListener("change", markUnseen);
by("in").addEventListener("click", () => view.zoomBy(1.6));
by("out").addEventListener("click", () => view.zoomBy(1 / 1.6));
by("all").addEventListener("click", () => view.fit());

const { slides, maps } = await (await fetch("/slides.json")).json();
shown.maps = maps;
by("map").replaceChildren(...maps.map((map) => new Option(map.title, map.name)));
listSlides(slides, choose);
const linked = () => {
  const place = placeIn(location.hash);
  return [slides.find((slide) => slide.label && slide.name === place.slide), place];
};
window.addEventListener("hashchange", () => {
  const [slide, place] = linked();
  if (slide && slide.name === shown.facts?.name) goToPlace(view, place);
  else if (slide) choose(slide.number, place);
  else say(place.slide === null ? "" : `There is no result of a slide named ${place.slide} here.`);
});
const [wanted, place] = linked();
const first = wanted ?? slides.find((slide) => slide.label);
if (first) await choose(first.number, wanted && place);
if (first && !wanted && place.slide !== null) say(`There is no result of a slide named ${place.slide} here; this is the first one.`);
if (!first) by("name").textContent = "No slide here has a result to show.";
