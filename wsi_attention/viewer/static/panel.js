// Text around the slide; everything that comes from files is set as text, never as markup.

export const by = (id) => document.getElementById(id);

function made(tag, text, attributes = {}) {
  const element = Object.assign(document.createElement(tag), attributes);
  if (text !== null) element.textContent = text;
  return element;
}

export function length(micrometres) {
  return Math.abs(micrometres) >= 1000 ? `${(micrometres / 1000).toFixed(2)} mm` : `${micrometres.toFixed(0)} µm`;
}

export const percent = (share) => `${(100 * share).toFixed(1)} %`;

export function listSlides(slides, choose) {
  by("slides").replaceChildren(...slides.map((slide) => {
    const button = made("button", slide.name, { type: "button", disabled: !slide.label, title: slide.reason });
    const about = slide.label ? `${slide.label}${slide.probability === "" ? "" : ` ${Number(slide.probability).toFixed(3)}`}` : slide.status;
    button.append(made("small", slide.status === "done" || !slide.label ? about : `${about}, ${slide.status}`));
    button.dataset.number = slide.number;
    button.addEventListener("click", () => choose(slide.number));
    const item = made("li", null);
    item.append(button);
    return item;
  }));
  by("find").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    for (const item of by("slides").children) item.hidden = !item.textContent.toLowerCase().includes(wanted);
  });
}

export function say(trouble) {
  by("trouble").textContent = trouble;
  by("trouble").hidden = !trouble;
}

export function markSlide(number) {
  for (const button of by("slides").querySelectorAll("button")) {
    button.setAttribute("aria-current", String(Number(button.dataset.number) === number));
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
  by("classes").replaceChildren(...[...facts.classes, ...facts.values].map(([name, share]) => {
    const row = made("tr", null);
    row.append(made("th", name, { scope: "row" }), made("td", share.toFixed(3)));
    return row;
  }));
  by("notes").replaceChildren(...facts.notes.map((note) => made("p", note)));
}

export function listTiles(boxes, top, mpp, choose) {
  const ranked = boxes.filter((box) => box.rank !== null).slice(0, 50);
  by("tiles").replaceChildren(...ranked.map((box) => {
    const item = made("li", null, { className: box.rank <= top ? "top" : "" });
    const button = made("button", null, { type: "button" });
    const where = `${length(box.x * mpp)}, ${length(box.y * mpp)}`;
    button.append(made("i", box.rank), made("small", where), made("span", percent(box.weight)));
    button.addEventListener("click", () => choose(box));
    item.append(button);
    return item;
  }));
  if (!ranked.length) by("tiles").append(made("li", "No tiles were read: the label rests on the overview."));
}

export function drawScale(attention, ticks, colours, colourAt) {
  by("scale").hidden = !attention;
  if (!attention) return;
  by("scale-name").textContent = `${attention.name}, times the average`;
  const context = by("ramp").getContext("2d");
  for (let x = 0; x < by("ramp").width; x += 1) {
    context.fillStyle = `rgb(${colourAt(x / (by("ramp").width - 1), colours).join(" ")})`;
    context.fillRect(x, 0, 1, by("ramp").height);
  }
  by("ticks").replaceChildren(...ticks.map(([value, place]) => {
    const mark = made("i", String(value));
    mark.style.left = `${100 * place}%`;
    return mark;
  }));
}

export function describeBox(box, mpp) {
  const lines = [`${box.rank === null ? "" : `${box.rank}: `}weight ${percent(box.weight)} (${box.glimpse})`];
  if (box.percentile !== null) lines.push(`attention above ${box.percentile.toFixed(1)} % of the tissue`);
  lines.push(`x ${box.x}, y ${box.y}, ${box.w} × ${box.h} px`, `${length(box.w * mpp)} × ${length(box.h * mpp)}`);
  return lines.join("\n");
}

export function drawBar(view, mpp) {
  const widest = (140 / view.scale) * mpp;
  const power = 10 ** Math.floor(Math.log10(widest));
  const round = [5, 2, 1].find((step) => step * power <= widest) * power;
  by("bar-text").textContent = round >= 1000 ? `${round / 1000} mm` : `${Number(round.toPrecision(1))} µm`;
  by("bar").style.width = `${(round / mpp) * view.scale}px`;
}
