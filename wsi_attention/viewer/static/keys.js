// Keys work anywhere on the page, without a click first; text fields keep theirs.

import { by, made } from "./panel.js";

const typing = (target) => target.matches?.("textarea, select, input:not([type=checkbox]):not([type=range])");
const AGAIN = /^(Arrow.*|[+-])$/; // keys that do more while they are held
const sliding = (target, key) => target.matches?.("input[type=range]") && /^(Arrow|Home|End|Page)/.test(key);

// keys: [names of keys as events have them, how they are shown, what they do, action, action on release].
export function listen(keys) {
  const table = by("keys").querySelector("table");
  table.append(...keys.map(([, shown, does]) => {
    const row = made("tr", null);
    row.append(made("th", shown, { scope: "row" }), made("td", does));
    return row;
  }));
  const found = (event) => keys.find(([names]) => names.includes(event.key) || names.includes(event.key.toLowerCase()));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (typing(event.target)) { if (event.key === "Escape") event.target.blur(); return; }
    if (sliding(event.target, event.key)) return;
    const key = found(event);
    if (!key || (by("keys").open && !key[0].includes("?"))) return;
    event.preventDefault();
    if (!event.repeat || AGAIN.test(key[0][0])) key[3](event);
  });
  document.addEventListener("keyup", (event) => found(event)?.[4]?.(event));
}

export function toggleKeys() {
  if (by("keys").open) by("keys").close();
  else by("keys").showModal();
}
