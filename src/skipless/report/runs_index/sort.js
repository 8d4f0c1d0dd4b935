for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (head.dataset.sort === undefined) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent;
      const order = (a, b) => head.dataset.sort === "number" ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });
      const rows = [...body.rows];
      const empty = (row) => key(row) === "";
      rows.sort((a, b) => empty(a) - empty(b) || (down ? -1 : 1) * order(key(a), key(b)));
      body.append(...rows);
    });
  });
}
