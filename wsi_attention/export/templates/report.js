"use strict";
(() => {
  const root = document.documentElement;
  const by = (id) => document.getElementById(id);

  // Sorting: numbers by value, text by the reader's own order; rows without a value always come last.
  const body = document.querySelector("#slides tbody");
  const heads = [...document.querySelectorAll("#slides thead th")];
  const order = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  function compare(a, b, numbers) {
    return numbers ? Number(a) - Number(b) : order.compare(a, b);
  }

  function sortBy(head) {
    const column = heads.indexOf(head);
    const down = head.getAttribute("aria-sort") === "ascending";
    const numbers = head.dataset.kind === "number";
    const rows = [...body.rows].map((row, index) => ({ row, index, value: row.cells[column].dataset.value }));
    rows.sort((a, b) => {
      if (a.value === "" || b.value === "") return (a.value === "") - (b.value === "") || a.index - b.index;
      return (down ? -1 : 1) * compare(a.value, b.value, numbers) || a.index - b.index;
    });
    body.append(...rows.map((entry) => entry.row));
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  }

  heads.forEach((head) => head.querySelector("button").addEventListener("click", () => sortBy(head)));

  by("find").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    let shown = 0;
    for (const row of body.rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      shown += row.hidden ? 0 : 1;
    }
    by("none").hidden = shown > 0;
  });

  // How all slides are shown.
  by("opacity").addEventListener("input", (event) => {
    root.style.setProperty("--attention-opacity", event.target.value / 100);
    by("opacity-shown").textContent = `${event.target.value} %`;
  });
  by("map").addEventListener("change", (event) => { root.dataset.map = event.target.value; });
  for (const layer of ["tiles", "unseen"]) {
    by(`show-${layer}`).addEventListener("change", (event) => {
      root.classList.toggle(`hide-${layer}`, !event.target.checked);
    });
  }

  // A tile and its box on the overview belong together.
  const closer = by("closer");

  function boxOf(item) {
    return item.closest("article").querySelector(`.boxes rect[data-rank="${item.dataset.rank}"]`);
  }

  for (const item of document.querySelectorAll(".tiles > li")) {
    item.addEventListener("pointerenter", () => boxOf(item)?.classList.add("lit"));
    item.addEventListener("pointerleave", () => boxOf(item)?.classList.remove("lit"));
    item.querySelector("button.tile")?.addEventListener("click", () => {
      const picture = item.querySelector("img");
      closer.querySelector("img").src = picture.src;
      closer.querySelector("img").alt = picture.alt;
      closer.querySelector("p").textContent = `${picture.alt}: ${item.querySelector(".place").innerText.replaceAll("\n", "; ")}`;
      closer.showModal();
    });
  }
  closer.addEventListener("click", (event) => { if (event.target === closer) closer.close(); });
})();
