// What the reviewer says to a slide: agree, disagree, a note; sent as soon as it is said, kept by the server in a CSV.

import { by, markVerdicts } from "./panel.js";

const WAIT = 800; // milliseconds after the last letter of a note

// Only the address that the program printed has the token by which reviews are written; the tab keeps it.
const KEY = "review-token";
function keepToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) sessionStorage.setItem(KEY, token);
}
keepToken();
window.addEventListener("hashchange", keepToken);

export class Review {
  // place(): {x, y, zoom} of the view; count: slides that can be reviewed.
  constructor(place, count) {
    Object.assign(this, { place, count, people: {}, trouble: {}, number: null, facts: null, verdict: "", waiting: 0 });
    for (const button of by("review").querySelectorAll("[data-verdict]")) {
      button.addEventListener("click", () => this.say(button.dataset.verdict));
    }
    by("note").addEventListener("input", () => {
      clearTimeout(this.waiting);
      this.at = this.place();
      this.waiting = setTimeout(() => this.send(), WAIT);
    });
    by("note").addEventListener("blur", () => this.flush());
    by("person").addEventListener("change", () => this.meet());
    by("review").addEventListener("submit", (event) => event.preventDefault());
    window.addEventListener("pagehide", () => this.flush());
  }

  async load(reviewer) {
    const answer = await (await fetch("/said.json")).json();
    Object.assign(this, answer);
    by("people").replaceChildren(...Object.keys(this.people).map((name) => new Option(name)));
    by("person").value = reviewer || localStorage.getItem("person") || "";
    this.meet();
  }

  get person() { return by("person").value.trim(); }

  get own() {
    const known = Object.keys(this.people).find((name) => name.toLowerCase() === this.person.toLowerCase());
    return this.people[known ?? this.person] ?? {};
  }

  // Another name: the marks are that person's.
  meet() {
    clearTimeout(this.waiting);
    this.waiting = 0;
    if (this.person) localStorage.setItem("person", this.person);
    this.mark();
    if (this.facts) this.show(this.number, this.facts);
    if (this.trouble[this.person]) by("said").textContent = this.trouble[this.person];
  }

  mark() {
    markVerdicts(new Map(Object.entries(this.own).filter(([, row]) => row.verdict).map(([number, row]) => [Number(number), row.verdict])), this.count);
  }

  // Turns to a slide; what was being written to the one before is sent.
  show(number, facts) {
    if (number !== this.number) this.flush();
    Object.assign(this, { number, facts });
    const row = this.own[number];
    const other = row && row.weights_sha256 !== facts.about.weights_sha256;
    this.verdict = row && !other ? row.verdict : "";
    by("note").value = row?.note ?? "";
    by("said").textContent = other ? `“${row.verdict || "a note"}” was said to another model, whose label was ${row.label}.` : row ? `Said ${row.reviewed.replace("T", " ").replace("Z", " UTC")}.` : "";
    this.press();
  }

  press() {
    for (const button of by("review").querySelectorAll("[data-verdict]")) {
      button.setAttribute("aria-pressed", String(button.dataset.verdict === this.verdict));
    }
  }

  // The same verdict a second time takes it back.
  say(verdict) {
    if (this.number === null) return;
    if (!this.person) {
      by("said").textContent = "Enter your name first: it is the name of your CSV.";
      document.body.dataset.sheet = "result";
      by("person").focus();
      return;
    }
    this.verdict = verdict === this.verdict ? "" : verdict;
    this.at = this.place();
    this.press();
    this.send();
  }

  flush() { if (this.waiting) this.send(); }

  async send() {
    clearTimeout(this.waiting);
    this.waiting = 0;
    const { number, person, verdict } = this;
    if (number === null) return;
    if (!person) { by("said").textContent = "Enter your name first: it is the name of your CSV."; return; }
    const body = JSON.stringify({ person, number, verdict, note: by("note").value, ...this.at });
    const before = this.sent;
    this.sent = this.post(before, number, person, body);
    await this.sent;
  }

  // One after the other, so that the last thing said is the one that stays.
  async post(before, number, person, body) {
    await before;
    let [text, row] = ["", null];
    try {
      const headers = { "Content-Type": "application/json", "X-Review-Token": sessionStorage.getItem(KEY) ?? "" };
      const answer = await fetch("/review", { method: "POST", headers, body, keepalive: true });
      if (answer.ok) row = await answer.json();
      else text = (await answer.text()).trim();
    } catch {
      text = "the viewer's program has ended, so this is not saved";
    }
    if (row) this.keep(number, person, row);
    if (number === this.number) by("said").textContent = row ? `Saved in reviews/${person}.csv.` : `Not saved: ${text}`;
  }

  keep(number, person, row) {
    const known = Object.keys(this.people).find((name) => name.toLowerCase() === person.toLowerCase()) ?? person;
    const own = this.people[known] ??= {};
    if (row.verdict || row.note) own[number] = row;
    else delete own[number];
    this.mark();
  }
}
