// What lies over the slide: attention in the chosen colours, hatching over tissue nobody looked at, boxes.

const RED = [200, 16, 46];
const INK = [28, 32, 38];
const BELOW = [0, 114, 178];
const ABOVE = [213, 94, 0];
const BANDS = 5;

export const rgb = (colour) => `rgb(${colour.join(" ")})`;

export function fromHex(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

export function colourAt(level, colours) {
  const at = level * (colours.length - 1);
  const low = Math.min(Math.floor(at), colours.length - 2);
  return colours[low].map((value, c) => Math.round(value + (colours[low + 1][c] - value) * (at - low)));
}

// How a place on the scale is shown: (level, alpha) → [colour, alpha]; `from` is the threshold as a place on the scale.
export function shades(kind, maps, own, from) {
  const map = maps.find((each) => each.name === kind);
  if (kind === "threshold") return (level, alpha) => [level >= from ? ABOVE : BELOW, alpha && Math.max(alpha, 0.5)];
  return (level, alpha) => [map ? colourAt(level, map.colours) : own, level >= from ? alpha : 0];
}

// A grey and alpha picture by its pixels: {w, h, level[], alpha[]}, both from 0 to 1.
export function cellsOf(image) {
  const canvas = document.createElement("canvas");
  const [w, h] = [image.naturalWidth, image.naturalHeight];
  Object.assign(canvas, { width: w, height: h });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, w, h);
  const every = (first) => Float32Array.from({ length: w * h }, (_, i) => data[4 * i + first] / 255);
  return { w, h, level: every(0), alpha: every(3) };
}

export function coloured(cells, shade) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: cells.w, height: cells.h });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(cells.w, cells.h);
  const known = []; // a map has few pairs of the two
  for (let i = 0; i < cells.level.length; i += 1) {
    const pair = Math.round(cells.level[i] * 255) * 256 + Math.round(cells.alpha[i] * 255);
    if (!known[pair]) {
      const [colour, alpha] = shade(cells.level[i], cells.alpha[i]);
      known[pair] = [...colour, Math.round(255 * alpha)];
    }
    pixels.data.set(known[pair], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

// 1 while tiles are small on the screen, 0 from where one fills half of it: then only outlines are left.
export function strength(view, side) {
  const share = (side * view.scale) / Math.min(view.width, view.height);
  return Math.min(1, Math.max(0, Math.log2(0.5 / share)));
}

// Lines between cells whose attention differs by a fifth of the scale or more, in the colour of the higher one.
export function drawOutlines(context, view, cells, place, shade, opacity) {
  const [w, h] = [place[2] / cells.w, place[3] / cells.h];
  const paths = Array.from({ length: BANDS + 1 }, () => new Path2D());
  const seen = (from, step, start, room, count) => [Math.floor((start - from) / step) - 1, Math.ceil((start + room / view.scale - from) / step)].map((at) => Math.min(Math.max(at, -1), count - 1));
  const [left, right] = seen(place[0], w, view.x, view.width, cells.w);
  const [top, bottom] = seen(place[1], h, view.y, view.height, cells.h);
  const band = (row, col) => {
    if (row < 0 || col < 0 || row >= cells.h || col >= cells.w) return 0;
    const [level, alpha] = [cells.level[row * cells.w + col], cells.alpha[row * cells.w + col]];
    return shade(level, alpha)[1] > 0 ? 1 + Math.min(BANDS - 1, Math.floor(level * BANDS)) : 0;
  };
  const line = (high, row, col, across) => {
    const [x, y] = view.toScreen(place[0] + col * w, place[1] + row * h);
    paths[high].moveTo(x, y);
    paths[high].lineTo(x + (across ? w * view.scale : 0), y + (across ? 0 : h * view.scale));
  };
  for (let row = top; row <= bottom; row += 1) {
    for (let col = left; col <= right; col += 1) {
      const [here, beside, below] = [band(row, col), band(row, col + 1), band(row + 1, col)];
      if (here !== beside) line(Math.max(here, beside), row, col + 1, false);
      if (here !== below) line(Math.max(here, below), row + 1, col, true);
    }
  }
  context.globalAlpha = opacity;
  for (let each = 1; each <= BANDS; each += 1) {
    for (const [style, width] of [["#fff", 4], [rgb(shade((each - 0.5) / BANDS, 1)[0]), 2.5]]) {
      Object.assign(context, { strokeStyle: style, lineWidth: width });
      context.stroke(paths[each]);
    }
  }
  context.globalAlpha = 1;
}

// White parts of a mask opaque, the rest transparent.
export function stencil(mask) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: mask.naturalWidth, height: mask.naturalHeight });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(mask, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < pixels.data.length; i += 4) pixels.data[i + 3] = pixels.data[i];
  context.putImageData(pixels, 0, 0);
  return canvas;
}

const sheet = document.createElement("canvas");

// Thin diagonals over the stencil, as far apart on the screen at every zoom.
export function drawHatch(context, view, picture, place) {
  Object.assign(sheet, { width: view.canvas.width, height: view.canvas.height });
  const drawn = sheet.getContext("2d");
  drawn.setTransform(view.ratio, 0, 0, view.ratio, 0, 0);
  drawPicture(drawn, view, picture, place, 1, false);
  drawn.globalCompositeOperation = "source-in";
  drawn.fillStyle = drawn.createPattern(diagonals(), "repeat");
  drawn.fillRect(0, 0, view.width, view.height);
  context.drawImage(sheet, 0, 0, view.width, view.height);
}

function diagonals(side = 9) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: side, height: side });
  const context = canvas.getContext("2d");
  Object.assign(context, { strokeStyle: "rgb(52 56 66 / 0.75)", lineWidth: 1.2 });
  for (const shift of [-side, 0, side]) {
    context.moveTo(shift - 1, side + 1);
    context.lineTo(shift + side + 1, -1);
  }
  context.stroke();
  return canvas;
}

export function drawPicture(context, view, picture, place, opacity, smooth) {
  const [left, top] = view.toScreen(place[0], place[1]);
  context.globalAlpha = opacity;
  context.imageSmoothingEnabled = smooth;
  context.drawImage(picture, left, top, place[2] * view.scale, place[3] * view.scale);
  context.globalAlpha = 1;
}

// How much of the heaviest tile's weight a tile has, 0 to 1, by its root: a hundredth is still a tenth as wide.
export function share(box, heaviest) {
  return box.rank === null || !heaviest ? 0 : Math.sqrt(box.weight / heaviest);
}

export const mixed = (part) => rgb(INK.map((value, c) => Math.round(value + (RED[c] - value) * part)));

export function drawBoxes(context, view, boxes, top, lit) {
  const heaviest = Math.max(0, ...boxes.filter((box) => box.rank !== null).map((box) => box.weight));
  for (let i = boxes.length - 1; i >= 0; i -= 1) { // the heaviest come first in the list, and lie on top
    const box = boxes[i];
    const [left, upper] = view.toScreen(box.x, box.y);
    const [w, h] = [box.w * view.scale, box.h * view.scale];
    if (left > view.width || upper > view.height || left + w < 0 || upper + h < 0) continue;
    const part = share(box, heaviest);
    context.lineWidth = 1 + 3 * part + (box === lit ? 2 : 0);
    context.strokeStyle = mixed(part);
    context.strokeRect(left, upper, w, h);
    if (box.rank !== null && box.rank <= top) drawRank(context, view, box.rank, part, left + w, upper);
  }
}

function drawRank(context, view, rank, part, x, y) {
  const [left, top] = [Math.min(Math.max(x + 8, 12), view.width - 12), Math.min(Math.max(y - 8, 12), view.height - 12)];
  context.beginPath();
  context.arc(left, top, 8 + 2 * part, 0, 2 * Math.PI);
  Object.assign(context, { fillStyle: mixed(part), strokeStyle: "#fff", lineWidth: 1.5 });
  context.fill();
  context.stroke();
  Object.assign(context, { fillStyle: "#fff", font: "600 12px system-ui, sans-serif", textAlign: "center", textBaseline: "middle" });
  context.fillText(String(rank), left, top + 0.5);
}

// The smallest box at a place: where boxes of two scales overlap, the finer one is meant.
export function boxAt(boxes, x, y) {
  const inside = boxes.filter((box) => x >= box.x && y >= box.y && x < box.x + box.w && y < box.y + box.h);
  return inside.sort((a, b) => a.w * a.h - b.w * b.h)[0] ?? null;
}
