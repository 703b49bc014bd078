// Headers of tables become buttons that sort their column. The page is whole without this.
for (const header of document.querySelectorAll("thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...header.childNodes);
  header.append(button);
  button.addEventListener("click", () => {
    const body = header.closest("table").tBodies[0];
    const up = header.getAttribute("aria-sort") !== "ascending";
    for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const place = header.cellIndex;
    const rows = [...body.rows].map((row) => [row.cells[place].dataset.sort, row.cells[place].textContent, row]);
    const figures = rows.some(([figure]) => figure !== undefined);
    const compare = figures ? ([a], [b]) => a - b : ([, a], [, b]) => a.localeCompare(b, "en");
    const known = rows.filter(([figure]) => !figures || figure !== undefined).sort(compare);
    if (!up) known.reverse();
    const empty = rows.filter((row) => !known.includes(row));
    body.append(...[...known, ...empty].map(([, , row]) => row));
  });
}

// A link into a folded finding opens it; printing opens all of them, and closes them again.
const open = () => location.hash && document.querySelector(`${location.hash} > details`)?.setAttribute("open", "");
addEventListener("hashchange", open);
open();
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  for (const one of closed) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of closed) one.open = false;
});
