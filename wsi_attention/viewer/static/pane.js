// One slide on the screen with what lies over it; two of them stand side by side.

import { DeepZoom, steer } from "./deepzoom.js";
import { boxAt, cellsOf, coloured, drawBoxes, drawHatch, drawOutlines, drawPicture, fromHex, shades, stencil, strength } from "./layers.js";
import { describeBox } from "./panel.js";
import { barOf, length, magnification } from "./text.js";

const TOP = 5;

function picture(url) {
  return new Promise((resolve) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => resolve(null);
    image.src = url;
  });
}

async function got(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

export class Pane {
  // settings: what the controls say {opacity, map, from, boxes, unseen, hidden, maps}; drawn(pane): after each drawing.
  constructor(root, settings, drawn) {
    Object.assign(this, { root, settings, drawn, facts: null, number: null, bare: false, asked: 0, lit: null });
    this.view = new DeepZoom(this.part("view"), (context) => this.draw(context));
    steer(this.view);
    this.part("view").addEventListener("pointermove", (event) => this.pointAt(event));
    this.part("view").addEventListener("pointerleave", () => { this.part("tip").hidden = true; this.part("where").textContent = ""; });
    this.part("in").addEventListener("click", () => this.view.zoomBy(1.6));
    this.part("out").addEventListener("click", () => this.view.zoomBy(1 / 1.6));
    this.part("all").addEventListener("click", () => this.view.fit());
    this.part("small").addEventListener("click", (event) => this.goToSmall(event));
  }

  part(name) { return this.root.querySelector(`.${name}`); }

  // Shows a slide: first what is known of it, then `ready(pane)`, then the slide itself, then what is wrong with it.
  async open(number, ready) {
    const mine = this.asked += 1;
    const base = `/slides/${number}`;
    const [overview, attention] = [picture(`${base}/overview.jpg`), picture(`${base}/attention.png`)];
    const facts = await got(`${base}/facts.json`);
    const pictures = [await overview, facts.attention && await attention];
    if (mine !== this.asked) return null;
    Object.assign(this, { facts, base, number, cells: pictures[1] && cellsOf(pictures[1]), unseen: null, lit: null });
    const url = (level, col, row) => `${base}/tiles/${level}/${col}_${row}.jpg`;
    this.view.show({ ...facts, coarsest: null, url }, pictures[0]);
    this.colour();
    this.loadUnseen();
    this.part("view").setAttribute("aria-label", `The slide ${facts.name}. Drag to move, wheel to zoom; question mark shows the keys.`);
    ready(this);
    const { coarsest, trouble } = await got(`${base}/slide.json`);
    if (mine !== this.asked) return null;
    this.view.slide.coarsest = coarsest;
    this.view.redraw();
    return trouble && `The slide itself cannot be shown, only its overview. ${trouble}`;
  }

  // Empties the view.
  close() {
    this.asked += 1;
    Object.assign(this, { facts: null, number: null, cells: null });
    this.view.slide = null;
    this.view.context.setTransform(1, 0, 0, 1, 0, 0);
    this.view.context.clearRect(0, 0, this.view.canvas.width, this.view.canvas.height);
  }

  get shade() {
    const own = fromHex(this.facts.colours[this.facts.leads] ?? "#808080");
    return shades(this.settings.map, this.settings.maps, own, this.settings.from);
  }

  colour() {
    this.colours = this.facts && this.cells && coloured(this.cells, this.shade);
    this.view.redraw();
  }

  async loadUnseen() {
    const { facts, base } = this;
    if (this.settings.unseen && facts?.unseen && !this.unseen) {
      const mask = await picture(`${base}/unseen.png`);
      if (mask && facts === this.facts) this.unseen = stencil(mask);
    }
    this.view.redraw();
  }

  draw(context) {
    if (!this.facts) return;
    if (!this.bare && !this.settings.hidden) this.drawLayers(context);
    const [text, width] = barOf(this.view.scale, this.facts.mpp);
    this.part("bar-text").textContent = text;
    this.root.querySelector(".bar i").style.width = `${width}px`;
    this.part("magnification").textContent = magnification(this.view.scale, this.facts.mpp);
    this.drawSmall();
    this.drawn(this);
  }

  drawLayers(context) {
    const { facts, settings, view } = this;
    if (this.unseen && settings.unseen) drawHatch(context, view, this.unseen, facts.unseen);
    if (this.colours && settings.opacity) {
      const part = strength(view, this.widest);
      if (part > 0) drawPicture(context, view, this.colours, facts.attention.place, settings.opacity * part, false);
      if (part < 1) drawOutlines(context, view, this.cells, facts.attention.place, this.shade, 1 - part);
    }
    if (settings.boxes) drawBoxes(context, view, facts.boxes, TOP, this.lit);
  }

  // Level-0 pixels of what a reader looks at as one: a tile that decided, or a cell of the map where that is larger.
  get widest() {
    const tiles = this.facts.boxes.filter((box) => box.rank !== null).map((box) => Math.max(box.w, box.h));
    return Math.max(this.facts.attention.place[2] / this.cells.w, ...tiles);
  }

  drawSmall() {
    const [canvas, { view }] = [this.part("small"), this];
    canvas.hidden = view.scale < 1.1 * view.smallest;
    const [w, h] = this.facts.extent;
    const by = Math.min(150, view.width / 4) / Math.max(w, h);
    Object.assign(canvas, { width: Math.max(1, w * by), height: Math.max(1, h * by) });
    const context = canvas.getContext("2d");
    if (view.overview) context.drawImage(view.overview, 0, 0, canvas.width, canvas.height);
    Object.assign(context, { strokeStyle: "#c8102e", lineWidth: 1.5 });
    context.strokeRect(view.x * by, view.y * by, (view.width / view.scale) * by, (view.height / view.scale) * by);
  }

  goToSmall(event) {
    const box = this.part("small").getBoundingClientRect();
    const [w, h] = this.facts.extent;
    this.view.centre(((event.clientX - box.left) / box.width) * w, ((event.clientY - box.top) / box.height) * h, this.view.scale);
  }

  // A tile fills half of the view, so that it is seen without attention over it.
  goTo(box) {
    this.lit = box;
    const room = 0.51 * Math.min(this.view.width / box.w, this.view.height / box.h);
    this.view.centre(box.x + box.w / 2, box.y + box.h / 2, room);
  }

  // The tile `step` further down the list, from the one that was gone to.
  nextTile(step) {
    const ranked = this.facts?.boxes.filter((each) => each.rank !== null) ?? [];
    if (!ranked.length) return null;
    const at = ranked.indexOf(this.lit);
    const box = ranked[at < 0 ? 0 : (at + step + ranked.length) % ranked.length];
    this.goTo(box);
    return box;
  }

  pointAt(event) {
    const { facts, view } = this;
    if (!facts) return;
    const place = view.canvas.getBoundingClientRect();
    const [left, top] = [event.clientX - place.left, event.clientY - place.top];
    const [x, y] = view.toSlide(left, top);
    const inside = x >= 0 && y >= 0 && x < facts.extent[0] && y < facts.extent[1];
    this.part("where").textContent = inside ? `x ${Math.floor(x)}, y ${Math.floor(y)} px · ${length(x * facts.mpp)}, ${length(y * facts.mpp)}` : "";
    const shown = this.settings.boxes && !this.bare && !this.settings.hidden;
    const over = shown ? boxAt(facts.boxes, x, y) : null;
    const tip = this.part("tip");
    tip.hidden = !over;
    if (over) {
      tip.textContent = describeBox(over, facts.mpp);
      tip.style.left = `${Math.max(0, Math.min(left + 14, view.width - tip.offsetWidth - 6))}px`;
      tip.style.top = `${Math.max(0, Math.min(top + 14, view.height - tip.offsetHeight - 6))}px`;
    }
    if (over !== this.lit) { this.lit = over; view.redraw(); }
  }
}

// Makes a pane from the page's template; `end` is added to the ids of its parts.
export function makePane(end, settings, drawn) {
  const root = document.getElementById("pane").content.cloneNode(true).firstElementChild;
  root.querySelector(".view").id = `view${end}`;
  root.querySelector(".tip").id = `tip${end}`;
  document.getElementById("stage").append(root);
  return new Pane(root, settings, drawn);
}
