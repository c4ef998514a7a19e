// A slide on a canvas: moves, zooms, and fetches the tiles of a Deep Zoom pyramid as they come into view.
// Positions are level-0 pixels of the slide; `scale` is CSS pixels per level-0 pixel.

const AT_ONCE = 6;
const KEPT = 800;
const FINEST = 8;

export class DeepZoom {
  constructor(canvas, draw) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.drawAbove = draw;
    this.slide = null;
    this.tiles = new Map();
    this.loading = new Set();
    this.wanted = [];
    this.scale = 1;
    this.moved = () => {};
    this.x = this.y = 0; // level-0 position of the canvas's top left corner
    this.due = false;
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  // slide: {extent, last, side, coarsest (null: no tiles), url(level, col, row)}; overview: an image or null.
  show(slide, overview) {
    Object.assign(this, { slide, overview, tiles: new Map(), loading: new Set(), wanted: [] });
    this.resize();
    this.fit();
  }

  resize() {
    const box = this.canvas.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    const before = this.width ? this.middle : null;
    const whole = this.slide && this.width && this.scale <= 1.001 * this.smallest;
    Object.assign(this, { width: box.width, height: box.height, ratio });
    this.canvas.width = Math.round(box.width * ratio);
    this.canvas.height = Math.round(box.height * ratio);
    if (whole) this.fit();
    else if (this.slide && before) this.centre(before[0], before[1], this.scale);
  }

  toSlide(left, top) { return [this.x + left / this.scale, this.y + top / this.scale]; }

  toScreen(x, y) { return [(x - this.x) * this.scale, (y - this.y) * this.scale]; }

  get smallest() {
    const [w, h] = this.slide.extent;
    return Math.min(this.width / w, this.height / h) * 0.94;
  }

  get middle() { return this.toSlide(this.width / 2, this.height / 2); }

  fit() { this.centre(this.slide.extent[0] / 2, this.slide.extent[1] / 2, this.smallest); }

  centre(x, y, scale) {
    const [w, h] = this.slide.extent;
    this.scale = Math.min(Math.max(scale, this.smallest), Math.max(FINEST, this.smallest));
    this.x = Math.min(Math.max(x, 0), w) - this.width / 2 / this.scale;
    this.y = Math.min(Math.max(y, 0), h) - this.height / 2 / this.scale;
    this.moved();
    this.redraw();
  }

  moveBy(left, top) {
    this.centre(this.x + (this.width / 2 - left) / this.scale, this.y + (this.height / 2 - top) / this.scale, this.scale);
  }

  // What lies under (left, top) stays there.
  zoomBy(factor, left = this.width / 2, top = this.height / 2) {
    const [x, y] = this.toSlide(left, top);
    const scale = Math.min(Math.max(this.scale * factor, this.smallest), Math.max(FINEST, this.smallest));
    this.centre(x + (this.width / 2 - left) / scale, y + (this.height / 2 - top) / scale, scale);
  }

  redraw() {
    if (this.due || !this.slide) return;
    this.due = true;
    requestAnimationFrame(() => { this.due = false; this.draw(); });
  }

  // The level whose pixels are nearest to the screen's, rather finer than coarser.
  level() {
    const steps = Math.floor(Math.log2(1 / (this.scale * this.ratio)) + 0.35);
    return Math.max(this.slide.coarsest, Math.min(this.slide.last, this.slide.last - Math.max(0, steps)));
  }

  draw() {
    const { context, ratio, scale } = this;
    const [w, h] = this.slide.extent;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.imageSmoothingEnabled = true;
    context.fillStyle = "#f4f4f4";
    this.fill(0, 0, w, h, null);
    if (this.overview) this.fill(0, 0, w, h, this.overview);
    this.wanted = [];
    if (this.slide.coarsest !== null) this.drawTiles(this.level());
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.drawAbove(context, this);
    this.fetchSome();
    const { x, y } = this;
    Object.assign(this.canvas.dataset, { x, y, scale, waiting: this.wanted.length + this.loading.size });
  }

  // Edges are rounded to the screen's pixels, so that neighbours meet without a seam.
  fill(x, y, w, h, image) {
    const by = this.scale * this.ratio;
    const left = Math.round((x - this.x) * by);
    const top = Math.round((y - this.y) * by);
    const right = Math.round((x + w - this.x) * by);
    const bottom = Math.round((y + h - this.y) * by);
    if (image) this.context.drawImage(image, left, top, right - left, bottom - top);
    else this.context.fillRect(left, top, right - left, bottom - top);
  }

  drawTiles(level) {
    for (let each = this.slide.coarsest; each <= level; each += 1) {
      const step = 2 ** (this.slide.last - each);
      this.context.imageSmoothingEnabled = step * this.scale * this.ratio < 2;
      for (const [col, row] of this.visible(step)) {
        const key = `${each}/${col}_${row}`;
        const image = this.tiles.get(key);
        const [x, y, side] = [col * this.slide.side * step, row * this.slide.side * step, this.slide.side * step];
        if (image) {
          this.fill(x, y, Math.min(side, Math.ceil(this.slide.extent[0] / step) * step - x), Math.min(side, Math.ceil(this.slide.extent[1] / step) * step - y), image);
          this.tiles.delete(key);
          this.tiles.set(key, image);
        } else if (each === level && image === undefined && !this.loading.has(key)) {
          const [left, top] = this.toScreen(x + side / 2, y + side / 2);
          this.wanted.push({ key, each, col, row, away: Math.hypot(left - this.width / 2, top - this.height / 2) });
        }
      }
    }
    this.wanted.sort((a, b) => a.away - b.away);
  }

  * visible(step) {
    const side = this.slide.side * step;
    const [w, h] = this.slide.extent;
    const last = (position, length, room) => Math.min(Math.ceil(length / side) - 1, Math.floor((position + room / this.scale) / side));
    for (let row = Math.max(0, Math.floor(this.y / side)); row <= last(this.y, h, this.height); row += 1) {
      for (let col = Math.max(0, Math.floor(this.x / side)); col <= last(this.x, w, this.width); col += 1) yield [col, row];
    }
  }

  fetchSome() {
    while (this.loading.size < AT_ONCE && this.wanted.length) {
      const { key, each, col, row } = this.wanted.shift();
      const { slide, tiles, loading } = this;
      const image = new Image();
      loading.add(key);
      const done = (result) => {
        loading.delete(key);
        tiles.set(key, result);
        if (slide === this.slide) this.redraw();
      };
      image.onload = () => done(image);
      image.onerror = () => done(null);
      image.src = slide.url(each, col, row);
    }
    while (this.tiles.size > KEPT) this.tiles.delete(this.tiles.keys().next().value);
  }
}

// Mouse and touch.
export function steer(view) {
  const { canvas } = view;
  const held = new Map();
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    held.set(event.pointerId, place(event));
    canvas.classList.add("held");
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held.has(event.pointerId) || !view.slide) return;
    const [before, now] = [held.get(event.pointerId), place(event)];
    const other = [...held].find(([id]) => id !== event.pointerId)?.[1];
    held.set(event.pointerId, now);
    if (!other) { view.moveBy(now[0] - before[0], now[1] - before[1]); return; }
    const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
    view.zoomBy(apart(now) / apart(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(kind, (event) => {
      held.delete(event.pointerId);
      if (!held.size) canvas.classList.remove("held");
    });
  }
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (view.slide) view.zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...place(event));
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => view.slide && view.zoomBy(2, ...place(event)));
}
