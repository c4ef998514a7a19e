// The page: which slides stand in the panes, what lies over them, which keys do what.

import { goToPlace, linkTo, placeIn } from "./link.js";
import { listen, toggleKeys } from "./keys.js";
import { makePane } from "./pane.js";
import { by, call, describe, drawScale, listSlides, listTiles, markSlide, markTile, say } from "./panel.js";
import { Review } from "./review.js";
import { savePicture } from "./snapshot.js";
import { scaleOf } from "./text.js";

const TOP = 5;
const { slides, maps, beside, reviewer } = await (await fetch("/slides.json")).json();
const settings = { maps, opacity: 0.7, map: maps[0].name, from: 0, boxes: true, unseen: false, hidden: false };
const first = makePane("", settings, noteAddress);
const second = makePane("-2", settings, () => {});
const panes = [first, second];
let active = first;
const labelled = slides.filter((slide) => slide.label);
const review = new Review(() => {
  const [x, y] = active.view.middle;
  return { x, y, zoom: active.view.scale };
}, labelled.length);

const two = () => Boolean(by("beside").value);

// The address follows the first view, so that it can be copied or kept at any moment.
let noting = 0;
function noteAddress() {
  clearTimeout(noting);
  noting = setTimeout(() => {
    const [x, y] = first.view.middle;
    if (first.facts) history.replaceState(null, "", linkTo(first.facts.name, x, y, first.view.scale));
  }, 250);
}

function read() {
  Object.assign(settings, {
    opacity: by("opacity").value / 100,
    map: by("map").value,
    from: by("threshold").value / 100,
    boxes: by("show-boxes").checked,
    unseen: by("show-unseen").checked,
  });
}

function recolour() {
  read();
  for (const pane of panes) pane.colour();
  if (active.facts) drawScale(active.facts.attention, active.facts.ticks, active.shade, settings.from);
}

function redraw() {
  read();
  for (const pane of panes) pane.loadUnseen();
}

function hide(hidden) {
  settings.hidden = hidden;
  for (const pane of panes) pane.view.redraw();
}

// Makes a pane the one that the text beside the slide is about.
function activate(pane) {
  active = pane;
  for (const each of panes) each.root.classList.toggle("active", each === pane && two());
  const { facts } = pane;
  if (!facts) return;
  describe(facts);
  markSlide(pane.number);
  listTiles(facts, pane.base, TOP, (box) => { sheet("", false); pane.goTo(box); markTile(box); });
  drawScale(facts.attention, facts.ticks, pane.shade, settings.from);
  review.show(pane.number, facts);
}

async function open(pane, number, place = null) {
  const mark = pane === first ? "slide" : "second";
  document.body.dataset[mark] = "";
  try {
    const trouble = await pane.open(number, () => {
      if (place) goToPlace(pane.view, place);
      if (pane === active) activate(pane);
      for (const each of panes) call(each, two());
      anchor();
      if (pane === first) document.body.dataset.ready = String(number);
    });
    if (trouble === null) return;
    say(trouble);
    requestAnimationFrame(() => requestAnimationFrame(() => { document.body.dataset[mark] = String(number); }));
  } catch (error) {
    say(error.message);
  }
}

async function choose(number, place = null) {
  const pane = by("beside").value === "slide" ? active : first;
  if (pane === first) active = first;
  say("");
  markSlide(number);
  if (pane === first) document.body.dataset.ready = "";
  await Promise.all([open(pane, number, place), pane === first && two() ? follow(number) : null]);
}

// Fills the second pane with what belongs beside a slide.
async function follow(number) {
  const kind = by("beside").value;
  second.bare = kind === "bare";
  const listed = slides.find((slide) => slide.number === number);
  const next = labelled[(labelled.indexOf(listed) + 1) % labelled.length];
  const wanted = { bare: number, slide: second.number ?? next?.number, model: listed?.twin }[kind] ?? null;
  if (kind === "slide" && second.number !== null && second.facts) return;
  if (wanted === null) {
    second.close();
    call(second, false);
    say(`${beside[0]} has no result of this slide.`);
    return;
  }
  await open(second, wanted);
}

function sideBySide() {
  second.close();
  second.root.hidden = !two();
  by("stage").classList.toggle("two", two());
  by("linked-label").hidden = !two();
  by("linked").checked = by("beside").value !== "slide";
  activate(first);
  call(first, two());
  if (two()) follow(first.number);
}

// Where the views stand when they begin to move together, in µm; the same slide has one place for both.
let anchors = null;
function anchor() {
  anchors = null;
  if (!two() || !first.facts || !second.facts) return;
  if (first.facts.fingerprint === second.facts.fingerprint) {
    anchors = [[0, 0], [0, 0]];
    lead(first, second);
  } else if (by("linked").checked) anchors = panes.map((pane) => pane.view.middle.map((at) => at * pane.facts.mpp));
}

let leading = false;
function lead(from, to) {
  if (leading || !anchors || !by("linked").checked || !to.facts) return;
  leading = true;
  const [here, there] = from === first ? anchors : [anchors[1], anchors[0]];
  const [x, y] = from.view.middle.map((at, axis) => (at * from.facts.mpp - here[axis] + there[axis]) / to.facts.mpp);
  to.view.centre(x, y, (from.view.scale / from.facts.mpp) * to.facts.mpp);
  leading = false;
}

first.view.moved = () => lead(first, second);
second.view.moved = () => lead(second, first);
for (const pane of panes) {
  pane.root.addEventListener("pointerdown", () => { if (two() && pane !== active && pane.facts) activate(pane); });
  pane.part("view").addEventListener("focus", () => { if (two() && pane !== active && pane.facts) activate(pane); });
  const button = pane.part("hide");
  button.addEventListener("pointerdown", (event) => { button.setPointerCapture(event.pointerId); hide(true); });
  for (const kind of ["pointerup", "pointercancel", "keyup", "blur"]) button.addEventListener(kind, () => hide(false));
  button.addEventListener("keydown", (event) => { if (event.key === " " || event.key === "Enter") { event.preventDefault(); hide(true); } });
}

function step(by_) {
  const at = labelled.findIndex((slide) => slide.number === (by("beside").value === "slide" ? active : first).number);
  if (labelled.length) choose(labelled[(at + by_ + labelled.length) % labelled.length].number);
}

function toggle(id) {
  by(id).click();
}

function cycleBeside() {
  const select = by("beside");
  select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
  sideBySide();
}

const STEP = 80;
const move = (left, top) => () => active.facts && active.view.moveBy(left, top);
const zoom = (factor) => () => active.facts && active.view.zoomBy(factor);
const times = (power) => () => { const { view, facts } = active; if (facts) view.centre(...view.middle, scaleOf(power, facts.mpp)); };
const tile = (by_) => () => { const box = active.nextTile(by_); if (box) markTile(box); };

listen([
  [["ArrowLeft"], "←", "move to the left", move(STEP, 0)],
  [["ArrowRight"], "→", "move to the right", move(-STEP, 0)],
  [["ArrowUp"], "↑", "move up", move(0, STEP)],
  [["ArrowDown"], "↓", "move down", move(0, -STEP)],
  [["+", "="], "+", "zoom in", zoom(1.5)],
  [["-"], "−", "zoom out", zoom(1 / 1.5)],
  [["0", "Home"], "0", "whole slide", () => active.facts && active.view.fit()],
  [["1"], "1", "×5, as of an objective (2 µm/px)", times(5)],
  [["2"], "2", "×10 (1 µm/px)", times(10)],
  [["3"], "3", "×20 (0.5 µm/px)", times(20)],
  [["4"], "4", "×40 (0.25 µm/px)", times(40)],
  [["n"], "N", "next tile by weight", tile(1)],
  [["p"], "P", "previous tile", tile(-1)],
  [["j"], "J", "next slide", () => step(1)],
  [["k"], "K", "previous slide", () => step(-1)],
  [["h"], "H, held", "hide what lies over the slide", () => hide(true), () => hide(false)],
  [["b"], "B", "tiles read, on or off", () => toggle("show-boxes")],
  [["u"], "U", "not inspected, on or off", () => toggle("show-unseen")],
  [["v"], "V", "side by side: the next kind", cycleBeside],
  [["l"], "L", "side by side: move together, or not", () => two() && toggle("linked")],
  [["a"], "A", "agree with the label", () => review.say("agree")],
  [["d"], "D", "disagree with the label", () => review.say("disagree")],
  [["m"], "M", "write a note; Escape leaves it", () => { sheet("result", true); by("note").focus(); }],
  [["s"], "S", "save a picture", picture],
  [["/"], "/", "find a slide; Escape leaves it", () => { sheet("slides", true); by("find").focus(); }],
  [["?"], "?", "these keys", toggleKeys],
]);
window.addEventListener("blur", () => hide(false));

function picture() {
  const shown = panes.filter((pane) => pane.facts && !pane.root.hidden);
  for (const pane of shown) pane.view.draw();
  if (shown.length) savePicture(shown);
}

// On a narrow screen the panels are sheets over the slide, one at a time.
function sheet(name, shown = document.body.dataset.sheet !== name) {
  document.body.dataset.sheet = shown ? name : "";
  for (const button of by("sheets").children) button.setAttribute("aria-expanded", String(shown && button.dataset.sheet === name));
}

for (const button of by("sheets").children) button.addEventListener("click", () => sheet(button.dataset.sheet));
by("opacity").addEventListener("input", redraw);
by("map").addEventListener("change", recolour);
by("threshold").addEventListener("input", recolour);
by("show-boxes").addEventListener("change", redraw);
by("show-unseen").addEventListener("change", redraw);
by("beside").addEventListener("change", sideBySide);
by("linked").addEventListener("change", anchor);
by("picture").addEventListener("click", picture);
by("help").addEventListener("click", toggleKeys);

by("map").replaceChildren(...maps.map((map) => new Option(map.title, map.name)), new Option("colour of class", "class"), new Option("two, below and above", "threshold"));
by("beside").replaceChildren(new Option("nothing", ""), new Option("the slide alone", "bare"), new Option("another slide", "slide"), ...beside.map((name) => new Option(`results of ${name}`, "model")));
second.root.hidden = true;
read();
listSlides(slides, (number) => { sheet("", false); choose(number); });

function linked() {
  const place = placeIn(location.hash);
  return [labelled.find((slide) => slide.name === place.slide), place];
}

window.addEventListener("hashchange", () => {
  const [slide, place] = linked();
  if (slide && slide.name === first.facts?.name) goToPlace(first.view, place);
  else if (slide) choose(slide.number, place);
  else say(place.slide === null ? "" : `There is no result of a slide named ${place.slide} here.`);
});

const [wanted, place] = linked();
await Promise.all([
  review.load(reviewer),
  labelled.length ? choose((wanted ?? labelled[0]).number, wanted && place) : null,
]);
if (!wanted && place.slide !== null) say(`There is no result of a slide named ${place.slide} here${labelled.length ? "; this is the first one" : ""}.`);
if (!labelled.length) by("name").textContent = "No slide here has a result to show.";
