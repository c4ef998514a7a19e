// Text around the slide; everything that comes from files is set as text, never as markup.

import { mixed, share } from "./layers.js";
import { labelText, length, percent } from "./text.js";

export const by = (id) => document.getElementById(id);

export function made(tag, text, attributes = {}) {
  const element = Object.assign(document.createElement(tag), attributes);
  if (text !== null) element.textContent = text;
  return element;
}

function swatch(colour) {
  const mark = made("i", null, { className: "swatch" });
  mark.style.background = colour;
  return mark;
}

export function listSlides(slides, choose) {
  by("slides").replaceChildren(...slides.map((slide) => {
    const button = made("button", null, { type: "button", disabled: !slide.label, title: slide.reason });
    const about = slide.label ? `${slide.label}${slide.probability === "" ? "" : ` ${Number(slide.probability).toFixed(3)}`}` : slide.status;
    const small = made("small", null);
    if (slide.colour) small.append(swatch(slide.colour));
    small.append(slide.status === "done" || !slide.label ? about : `${about}, ${slide.status}`);
    button.append(slide.name, small);
    button.dataset.number = slide.number;
    button.addEventListener("click", () => choose(slide.number));
    const item = made("li", null);
    item.append(button);
    return item;
  }));
  by("find").addEventListener("input", find);
}

export function find() {
  const wanted = by("find").value.trim().toLowerCase();
  for (const item of by("slides").children) item.hidden = !item.textContent.toLowerCase().includes(wanted);
}

// What the reviewer said to each slide, beside its label: number → "agree" or "disagree".
export function markVerdicts(verdicts, count) {
  for (const button of by("slides").querySelectorAll("button")) {
    button.querySelector("b")?.remove();
    const said = verdicts.get(Number(button.dataset.number));
    if (said) button.querySelector("small").append(made("b", said === "agree" ? " agreed" : " disagreed", { className: said }));
  }
  by("progress").textContent = verdicts.size ? `${verdicts.size} of ${count} reviewed` : "";
}

export function say(trouble) {
  by("trouble").textContent = trouble;
  by("trouble").hidden = !trouble;
}

export function markSlide(number) {
  for (const button of by("slides").querySelectorAll("button")) {
    const chosen = Number(button.dataset.number) === number;
    button.setAttribute("aria-current", String(chosen));
    if (chosen) button.scrollIntoView({ block: "nearest" });
  }
}

export function markTile(box) {
  for (const button of by("tiles").querySelectorAll("button")) {
    const chosen = button.dataset.rank === String(box?.rank);
    button.setAttribute("aria-current", String(chosen));
    if (chosen) button.scrollIntoView({ block: "nearest" });
  }
}

function among(classes) {
  return classes ? `, set: ${classes.join(", ") || "no class"}` : "";
}

export function describe(facts) {
  document.title = `${facts.name}: wsi-attention viewer`;
  by("name").textContent = facts.name;
  const spread = facts.spread === null ? "" : ` ± ${facts.spread < 0.0005 ? "<0.001" : facts.spread.toFixed(3)}`;
  const unread = facts.unread === null ? "" : `, ${percent(facts.unread)} of the attention unread`;
  by("verdict").replaceChildren(made("b", facts.label), `${facts.probability === null ? "" : ` probability ${facts.probability.toFixed(3)}`}${spread}, ${facts.calibrated ? "calibrated" : "not calibrated"}${unread}${among(facts.set)}`);
  by("warning").textContent = facts.warning;
  by("warning").hidden = !facts.warning;
  by("classes").replaceChildren(...[...facts.classes, ...facts.values].map(([name, value]) => {
    const [row, head] = [made("tr", null), made("th", null, { scope: "row" })];
    if (facts.colours[name]) head.append(swatch(facts.colours[name]));
    head.append(name);
    row.append(head, made("td", value.toFixed(3)));
    return row;
  }));
  by("notes").replaceChildren(...facts.notes.map((note) => made("p", note)));
}

export function listTiles(facts, base, top, choose) {
  const ranked = facts.boxes.filter((box) => box.rank !== null).slice(0, 50);
  by("tiles").replaceChildren(...ranked.map((box) => {
    const item = made("li", null, { className: box.rank <= top ? "top" : "" });
    const button = made("button", null, { type: "button" });
    button.dataset.rank = box.rank;
    const rank = made("i", box.rank);
    rank.style.background = box.rank <= top ? mixed(share(box, ranked[0].weight)) : "";
    const image = made("img", null, { loading: "lazy", decoding: "async", fetchPriority: "low", alt: "", width: 56, height: 56 });
    image.addEventListener("error", () => image.classList.add("gone"));
    image.src = `${base}/picture/${box.rank}.jpg`;
    button.append(rank, image, made("span", percent(box.weight)), made("small", `${length(box.x * facts.mpp)}, ${length(box.y * facts.mpp)}`));
    button.addEventListener("click", () => choose(box));
    item.append(button);
    return item;
  }));
  if (!ranked.length) by("tiles").append(made("li", "No tiles were read: the label rests on the overview."));
}

// `shade` gives colour and alpha of a place on the scale, `from` is the threshold on it.
export function drawScale(attention, ticks, shade, from) {
  by("scale").hidden = !attention;
  if (!attention) return;
  by("scale-name").textContent = `${attention.name}, times the average`;
  const [canvas, context] = [by("ramp"), by("ramp").getContext("2d")];
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (let x = 0; x < canvas.width; x += 1) {
    const level = x / (canvas.width - 1);
    const [colour, alpha] = shade(level, 0.15 + 0.85 * Math.sqrt(level));
    context.fillStyle = `rgb(${colour.join(" ")} / ${by("map").value === "class" ? alpha : Number(alpha > 0)})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
  by("threshold-text").textContent = from > 0 ? `${Number((attention.top ** from).toPrecision(2))}×` : "1×";
  by("ticks").replaceChildren(...ticks.map(([value, place]) => {
    const mark = made("i", String(value));
    mark.style.left = `${100 * place}%`;
    if (place > 0.96) mark.style.transform = "translateX(-100%)";
    return mark;
  }));
}

export function describeBox(box, mpp) {
  const lines = [`${box.rank === null ? "" : `${box.rank}: `}weight ${percent(box.weight)} (${box.glimpse})`];
  if (box.percentile !== null) lines.push(`attention above ${box.percentile.toFixed(1)} % of the tissue`);
  lines.push(`x ${box.x}, y ${box.y}, ${box.w} × ${box.h} px`, `${length(box.w * mpp)} × ${length(box.h * mpp)}`);
  return lines.join("\n");
}

// What stands in a pane while there are two: whose slide, which label, which model.
export function call(pane, shown) {
  const { about } = pane.facts ?? {};
  pane.part("called").hidden = !shown || !about;
  if (about) pane.part("called").textContent = `${pane.facts.name}: ${pane.bare ? "slide alone" : `${labelText(pane.facts)}, model ${about.model || "unnamed"} ${about.weights_sha256.slice(0, 8)}`}`;
}
