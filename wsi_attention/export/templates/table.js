
// The table: sorted by number or text, rows without a value always last; filters act on all that is shown of a slide.
// Of many rows only those are in the page that have been scrolled to: it stays quick and small however many there are.
const STEP = document.querySelectorAll("#slides tbody tr").length;
const body = document.querySelector("#slides tbody");
const heads = [...document.querySelectorAll("#slides thead th")];
const columns = Object.fromEntries(heads.map((head, index) => [head.dataset.key, index]));
const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
const rest = by("rest")?.content.querySelectorAll("tr") ?? [];
const entries = [...body.rows, ...rest].map((row, index) => ({ row, index, card: null, text: null, values: {} }));
const started = by("class")?.value ?? "";
let ordered = entries;
let fitting = entries;
let attached = body.rows.length;

function probability(entry) {
  const chosen = by("class")?.value ?? "";
  if (chosen === started) return entry.row.cells[columns.probability].dataset.value;
  entry.shares ??= entry.row.dataset.shares?.split(" ") ?? [];
  if (!entry.shares.length) return "";
  return chosen === "" ? String(Math.max(...entry.shares.map(Number))) : entry.shares[chosen];
}

function valueOf(entry, key, numbers) {
  if (key === "probability") return probability(entry);
  return (entry.values[key] ??= numbers ? entry.row.cells[columns[key]].dataset.value : entry.row.cells[columns[key]].textContent);
}

// The row as it is to be shown now: with the probability of the class that is chosen.
function current(entry) {
  const cell = entry.row.cells[columns.probability];
  if (cell.children.length === 2) {
    const share = probability(entry);
    cell.children[0].style.setProperty("--share", share);
    cell.children[1].textContent = Number(share).toFixed(3);
  }
  return entry.card ? [entry.row, entry.card] : [entry.row];
}

function attach(count) {
  const piece = document.createDocumentFragment();
  for (const entry of fitting.slice(attached, attached + count)) piece.append(...current(entry));
  body.append(piece);
  attached = Math.min(attached + count, fitting.length);
  by("more").hidden = attached === fitting.length;
}

function draw() {
  fitting = ordered.filter((entry) => entry.fits !== false);
  body.replaceChildren();
  attached = 0;
  attach(STEP);
}

function sortBy(head, down) {
  const { key, kind } = head.dataset;
  const numbers = kind === "number";
  const sign = down ? -1 : 1;
  const keyed = entries.map((entry) => ({ entry, value: valueOf(entry, key, numbers) }));
  const full = keyed.filter(({ value }) => value !== "");
  if (numbers) for (const one of full) one.value = Number(one.value);
  full.sort((a, b) => sign * (numbers ? a.value - b.value : collator.compare(a.value, b.value)) || a.entry.index - b.entry.index);
  ordered = [...full, ...keyed.filter(({ value }) => value === "")].map(({ entry }) => entry);
  for (const other of heads) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
}

for (const head of heads) {
  head.querySelector("button").addEventListener("click", () => {
    sortBy(head, head.getAttribute("aria-sort") === "ascending");
    draw();
  });
}

// Filters.
const filters = ["find", "least", "label", "status"].map(by).filter(Boolean);
const ofPatients = [...document.querySelectorAll(".patients tbody tr, .of-patient")];

function fits(entry, wanted, least, label, status) {
  const { row } = entry;
  if (status && row.dataset.status !== status) return false;
  if (label && valueOf(entry, "label", false) !== label) return false;
  if (wanted && !(entry.text ??= row.textContent.toLowerCase()).includes(wanted)) return false;
  return least === "" || Number(probability(entry) || -1) >= Number(least);
}

function filter() {
  const wanted = by("find").value.trim().toLowerCase();
  const others = ["least", "label", "status"].map((id) => by(id)?.value ?? "");
  const seen = new Set();
  for (const entry of entries) {
    entry.fits = fits(entry, wanted, ...others);
    if (entry.fits) seen.add(entry.row.dataset.patient);
    const section = entry.section ??= by(`slide-${entry.row.dataset.slide}`) ?? false;
    if (section) section.hidden = !entry.fits;
  }
  for (const one of ofPatients) one.hidden = !seen.has(one.dataset.patient);
  draw();
  by("none").hidden = fitting.length > 0;
  by("clear").hidden = filters.every((each) => each.value === "");
  by("shown").textContent = `${fitting.length} of ${entries.length}`;
}

for (const each of filters) each.addEventListener("input", filter);
by("clear").addEventListener("click", () => {
  for (const each of filters) each.value = "";
  filter();
  by("find").focus();
});

// The class whose probability is shown; the slides where it is highest come first.
by("class")?.addEventListener("change", () => {
  sortBy(heads[columns.probability], true);
  filter();
});

by("more").addEventListener("click", () => attach(STEP));
new IntersectionObserver((seen) => { if (seen.some((one) => one.isIntersecting)) attach(STEP); }, { rootMargin: "800px" }).observe(by("more"));
window.addEventListener("beforeprint", () => attach(entries.length));
