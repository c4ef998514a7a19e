// What is on the screen as a PNG: with scale bar, and with what it is of, in the picture and in the file's Description.

import { barOf, labelText, magnification } from "./text.js";

const LINE = 18;
const PAD = 12;
const FONT = "13px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";

// The facts of a picture, name → text.
export function provenance(pane, date) {
  const { facts, settings, view } = pane;
  const [x, y] = view.middle;
  const times = facts.attention ? facts.attention.top ** settings.from : 1;
  const over = pane.bare || settings.hidden ? "slide alone" : `attention ${Math.round(100 * settings.opacity)} %, colours ${settings.map}, from ${Number(times.toPrecision(2))} times the average`;
  return {
    slide: facts.name,
    fingerprint: facts.fingerprint,
    label: labelText(facts),
    model: facts.about.model,
    weights_sha256: facts.about.weights_sha256,
    version: facts.about.version,
    x: Math.round(x),
    y: Math.round(y),
    zoom: Number(view.scale.toPrecision(6)),
    mpp: facts.mpp,
    shown: over,
    date,
    use: ["research use only, not for diagnosis", facts.warning].filter(Boolean).join("; "),
  };
}

function lines(pane, told) {
  return [
    `${told.slide}: ${told.label}`,
    `model ${told.model || "unnamed"}, weights ${told.weights_sha256.slice(0, 12)}, wsi-attention ${told.version}`,
    `middle x ${told.x}, y ${told.y} px of level 0, zoom ${told.zoom}; ${magnification(pane.view.scale, told.mpp)}`,
    `${told.shown}; ${told.date}`,
    told.use,
  ];
}

function wrapped(context, text, width) {
  const found = [""];
  for (const word of text.split(/(?<=[\s_/-])/)) {
    if (found.at(-1) && context.measureText(found.at(-1) + word).width > width) found.push("");
    found[found.length - 1] += word;
  }
  return found;
}

function drawBar(context, pane, left, bottom) {
  const [text, width] = barOf(pane.view.scale, pane.facts.mpp);
  context.fillStyle = "rgb(255 255 255 / 0.88)";
  context.fillRect(left, bottom - 32, Math.max(width, context.measureText(text).width) + 18, 32);
  context.fillStyle = "#1c2026";
  context.fillText(text, left + 9, bottom - 15);
  context.fillRect(left + 9, bottom - 9, width, 4);
}

// Draws panes beside each other, each with its lines below it; all must have been drawn.
export function composed(panes, date) {
  const ratio = panes[0].view.ratio;
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  context.font = FONT;
  const told = panes.map((pane) => provenance(pane, date));
  const texts = panes.map((pane, k) => lines(pane, told[k]).flatMap((line) => wrapped(context, line, pane.view.width - 2 * PAD)));
  const height = Math.max(...panes.map((pane) => pane.view.height));
  const below = Math.max(...texts.map((each) => each.length)) * LINE + 2 * PAD;
  canvas.width = Math.round(panes.reduce((sum, pane) => sum + pane.view.width, 0) * ratio);
  canvas.height = Math.round((height + below) * ratio);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.font = FONT;
  let left = 0;
  panes.forEach((pane, k) => {
    context.drawImage(pane.view.canvas, left, 0, pane.view.width, pane.view.height);
    drawBar(context, pane, left + PAD, pane.view.height - PAD);
    texts[k].forEach((line, row) => context.fillText(line, left + PAD, height + PAD + 13 + row * LINE));
    left += pane.view.width;
  });
  return [canvas, told];
}

function crc(bytes) {
  let rest = ~0;
  for (const byte of bytes) {
    rest ^= byte;
    for (let bit = 0; bit < 8; bit += 1) rest = (rest >>> 1) ^ (rest & 1 ? 0xedb88320 : 0);
  }
  return ~rest >>> 0;
}

// The PNG with a text of its own (an iTXt chunk, PNG specification 11.3.3.4), after the header of 33 bytes.
export async function described(blob, text) {
  const png = new Uint8Array(await blob.arrayBuffer());
  const content = new TextEncoder().encode(`iTXtDescription\0\0\0\0\0${text}`);
  const chunk = new Uint8Array(content.length + 8);
  const numbers = new DataView(chunk.buffer);
  numbers.setUint32(0, content.length - 4);
  chunk.set(content, 4);
  numbers.setUint32(content.length + 4, crc(content));
  return new Blob([png.subarray(0, 33), chunk, png.subarray(33)], { type: "image/png" });
}

export async function savePicture(panes) {
  const [canvas, told] = composed(panes, new Date().toISOString().replace(/\.\d+/, ""));
  const blob = await new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await described(blob, JSON.stringify(told)));
  link.download = `${told[0].slide.replace(/[^\p{L}\p{N}._-]+/gu, "_")}_x${told[0].x}_y${told[0].y}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
