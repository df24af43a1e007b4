"use strict";
// Sorting of tables, shortening of long ones, opening and filtering of the layers. The page is whole without it.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const numeric = head.classList.contains("n");
      const before = head.getAttribute("aria-sort");
      const ascending = before ? before === "descending" : !numeric;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const rows = [...body.rows].sort((a, b) => {
        const order = numeric ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b), "en", { numeric: true });
        return ascending ? order : -order;
      });
      rows.forEach((row, place) => row.classList.toggle("more", place >= Number(table.dataset.first)));
      body.append(...rows);
    });
  });
  if (body.querySelector("tr.more")) {
    table.classList.add("shortened");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "button";
    const label = () => {
      button.textContent = table.classList.contains("shortened")
        ? `Show all ${body.rows.length}` : `Show only ${table.dataset.first}`;
    };
    button.addEventListener("click", () => { table.classList.toggle("shortened"); label(); });
    label();
    table.parentElement.after(button);
  }
}

const layers = [...document.querySelectorAll("details.layer")];
function reveal() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const layer = target && target.closest("details");
  if (layer) {
    layer.hidden = false;
    layer.open = true;
    target.scrollIntoView();
  }
}
addEventListener("hashchange", reveal);
reveal();

const tools = document.getElementById("layer-tools");
if (tools) {
  tools.hidden = false;
  tools.querySelector("input").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    layers.forEach((layer) => { layer.hidden = !layer.dataset.names.includes(wanted); });
  });
  tools.querySelector("button").addEventListener("click", () => {
    const open = layers.some((layer) => !layer.hidden && !layer.open);
    layers.forEach((layer) => { if (!layer.hidden) layer.open = open; });
  });
}
