// How slides are shown: attention, colours, layers; what belongs together; where the viewer opens.
const root = document.documentElement;
const by = (id) => document.getElementById(id);
const look = { opacity: 75, map: root.dataset.map, tiles: true, unseen: true };
const maps = [...by("map").options].map((option) => option.value);

function show(wanted) {
  Object.assign(look, wanted);
  root.style.setProperty("--attention-opacity", look.opacity / 100);
  root.dataset.map = look.map;
  root.classList.toggle("hide-tiles", !look.tiles);
  root.classList.toggle("hide-unseen", !look.unseen);
  by("opacity-shown").textContent = `${look.opacity} %`;
  document.dispatchEvent(new CustomEvent("look"));
}

by("opacity").addEventListener("input", (event) => show({ opacity: Number(event.target.value) }));
by("map").addEventListener("change", (event) => show({ map: event.target.value }));
for (const layer of ["tiles", "unseen"]) {
  by(`show-${layer}`).addEventListener("change", (event) => show({ [layer]: event.target.checked }));
}

// A tile and its box on the overview belong together.
const closer = by("closer");

function boxOf(item) {
  return item.closest("article").querySelector(`.boxes rect[data-rank="${item.dataset.rank}"]`);
}

function enlarge(item) {
  const picture = item.querySelector("img");
  closer.querySelector("img").src = picture.src;
  closer.querySelector("img").alt = picture.alt;
  closer.querySelector("p").textContent = `${picture.alt}: ${item.querySelector(".place").innerText.replaceAll("\n", "; ")}`;
  closer.style.setProperty("--top", `${item.getBoundingClientRect().top}px`);
  closer.showModal();
}

for (const item of document.querySelectorAll(".tiles > li")) {
  item.addEventListener("pointerenter", () => boxOf(item)?.classList.add("lit"));
  item.addEventListener("pointerleave", () => boxOf(item)?.classList.remove("lit"));
  item.querySelector("button.tile")?.addEventListener("click", () => enlarge(item));
}
closer.addEventListener("click", (event) => { if (event.target === closer) closer.close(); });

// An overview's link leads to what the mouse points at, at a quarter of full resolution.
for (const link of document.querySelectorAll("a.to-viewer")) {
  const whole = link.getAttribute("href");
  const picture = link.querySelector("svg");
  link.addEventListener("pointermove", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
    link.href = `${whole}&x=${Math.round(at.x)}&y=${Math.round(at.y)}&zoom=0.25`;
  });
  link.addEventListener("pointerleave", () => { link.href = whole; });
}
