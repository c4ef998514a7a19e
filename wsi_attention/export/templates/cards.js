
// A slide opens below its row, from the page of its own; the oldest closes when there are many, so that memory is bounded.
// One that has been scrolled far away keeps its place and gives its page back; it is loaded again as it comes near.
const MOST = 4;
const open = [];

const near = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    const entry = open.find(({ card }) => card === target);
    if (entry && isIntersecting) load(entry);
    else if (entry && frameOf(entry) !== document.activeElement) unload(entry);
  }
}, { rootMargin: "300px" });

function load(entry) {
  if (frameOf(entry)) return;
  const link = entry.row.querySelector("a.card-of");
  const cell = entry.card.firstChild;
  const frame = document.createElement("iframe");
  frame.title = `Slide ${link.textContent}`;
  frame.sandbox = "allow-scripts allow-popups allow-popups-to-escape-sandbox";
  frame.src = link.href;
  frame.style.height = cell.style.height;
  cell.append(frame);
}

function unload(entry) {
  if (!frameOf(entry)) return;
  entry.card.firstChild.style.height = `${entry.card.firstChild.offsetHeight}px`;
  frameOf(entry).remove();
}

function close(entry) {
  near.unobserve(entry.card);
  entry.card.remove();
  entry.card = null;
  open.splice(open.indexOf(entry), 1);
  entry.row.querySelector("a.card-of").setAttribute("aria-expanded", "false");
  document.body.classList.toggle("showing", open.length > 0);
}

function openCard(entry, link) {
  if (open.length === MOST) close(open[0]);
  const [card, cell] = ["tr", "td"].map((name) => document.createElement(name));
  card.className = "card";
  card.setAttribute("role", "row");
  cell.setAttribute("role", "cell");
  cell.setAttribute("aria-colspan", String(heads.length));
  cell.colSpan = heads.length;
  card.append(cell);
  entry.row.after(card);
  entry.card = card;
  open.push(entry);
  load(entry);
  near.observe(card);
  link.setAttribute("aria-expanded", "true");
  document.body.classList.add("showing");
}

for (const entry of entries) entry.row.querySelector("a.card-of")?.setAttribute("aria-expanded", "false");

body.addEventListener("click", (event) => {
  const link = event.target.closest("a.card-of");
  if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  const entry = entries.find(({ row }) => row.contains(link));
  if (entry.card) close(entry);
  else openCard(entry, link);
});

const frameOf = ({ card }) => card.querySelector("iframe");

window.addEventListener("message", ({ source, data }) => {
  const entry = source && open.find((each) => frameOf(each)?.contentWindow === source); // no source: it is closed by now
  if (!entry || !(data?.height > 0)) return;
  frameOf(entry).style.height = `${Math.min(Math.ceil(data.height), 20000)}px`;
  entry.card.firstChild.style.height = "";
  source.postMessage({ ...look }, "*");
});
document.addEventListener("look", () => open.forEach((each) => frameOf(each)?.contentWindow?.postMessage({ ...look }, "*")));
