// What lies over the slide: attention in the chosen colours, hatching over tissue nobody looked at, boxes.

// A grey and alpha picture as a canvas of its colours; grey 0 … 255 runs through `colours`, evenly spaced RGB.
export function coloured(image, colours) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: image.naturalWidth, height: image.naturalHeight });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < pixels.data.length; i += 4) pixels.data.set(colourAt(pixels.data[i] / 255, colours), i);
  context.putImageData(pixels, 0, 0);
  return canvas;
}

export function colourAt(level, colours) {
  const at = level * (colours.length - 1);
  const low = Math.min(Math.floor(at), colours.length - 2);
  return colours[low].map((value, c) => Math.round(value + (colours[low + 1][c] - value) * (at - low)));
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

export function drawBoxes(context, view, boxes, top, lit) {
  for (let i = boxes.length - 1; i >= 0; i -= 1) { // the heaviest come first in the list, and lie on top
    const box = boxes[i];
    const [left, upper] = view.toScreen(box.x, box.y);
    const [w, h] = [box.w * view.scale, box.h * view.scale];
    if (left > view.width || upper > view.height || left + w < 0 || upper + h < 0) continue;
    const strong = box.rank !== null && box.rank <= top;
    context.lineWidth = (strong ? 2.5 : 1.2) + (box === lit ? 2 : 0);
    context.strokeStyle = strong ? "#c8102e" : "#1c2026";
    context.strokeRect(left, upper, w, h);
    if (strong) drawRank(context, view, box.rank, left + w, upper);
  }
}

function drawRank(context, view, rank, x, y) {
  const [left, top] = [Math.min(Math.max(x + 8, 12), view.width - 12), Math.min(Math.max(y - 8, 12), view.height - 12)];
  context.beginPath();
  context.arc(left, top, 10, 0, 2 * Math.PI);
  Object.assign(context, { fillStyle: "#c8102e", strokeStyle: "#fff", lineWidth: 1.5 });
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
