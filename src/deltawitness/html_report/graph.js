// The columns of the table or of the edge that is chosen in the lineage graph.
(() => {
  const panel = document.getElementById("columns");
  if (!panel) return;
  const places = [...new Set(data.edges.flatMap((edge) => [edge.source, edge.target]))];
  const items = [...document.querySelectorAll(".lineage [role=button]")];
  let chosen = null;

  function make(name, content, children = []) {
    const made = document.createElement(name);
    if (content !== null) made.textContent = content;
    made.append(...children);
    return made;
  }

  function cells(name, texts) {
    return make("tr", null, texts.map((text) => {
      const cell = make(name, null, [make("bdi", text)]);
      if (name === "th") cell.scope = "col";
      return cell;
    }));
  }

  // The columns of an edge as a table, or why they are not known.
  function shown(edge) {
    const { pairs, left_out: more, reason } = edge.columns;
    const title = edge.target_name + " made from " + edge.source_name;
    if (!pairs.length) return [make("p", title + ": " + (reason ? "not known: " + reason : "no column"))];
    const rows = pairs.map(([target, source, use]) => cells("td", [target === null ? "(which rows)" : target, source, use]));
    const table = make("table", null, [
      make("caption", title),
      make("thead", null, [cells("th", ["column of " + edge.target_name, "from " + edge.source_name, "use"])]),
      make("tbody", null, rows),
    ]);
    const note = make("p", "Only the first " + pairs.length + " of " + (pairs.length + more) + " are in the report.");
    note.className = "note";
    return more ? [table, note] : [table];
  }

  function edgesOf(item) {
    if (item.dataset.edge !== undefined) return [data.edges[item.dataset.edge]];
    const place = places[item.dataset.node];
    return data.edges.filter((edge) => edge.source === place || edge.target === place);
  }

  function choose(item) {
    const edges = edgesOf(item);
    chosen = item;
    items.forEach((each) => {
      each.classList.toggle("chosen", each === item || edges.includes(data.edges[each.dataset.edge]));
      each.setAttribute("aria-pressed", String(each === item));
    });
    const close = make("button", "Close");
    close.type = "button";
    close.addEventListener("click", leave);
    panel.replaceChildren(make("h3", "Columns: " + item.getAttribute("aria-label")), ...edges.flatMap(shown), close);
    panel.hidden = false;
    panel.focus();
  }

  function leave() {
    panel.hidden = true;
    items.forEach((each) => {
      each.classList.remove("chosen");
      each.removeAttribute("aria-pressed");
    });
    if (chosen) reach(chosen);
  }

  // One of the items is in the order of the Tab key; the arrow keys move between them.
  function reach(item) {
    items.forEach((each) => each.setAttribute("tabindex", each === item ? "0" : "-1"));
    item.focus();
  }

  items.forEach((item, number) => {
    item.setAttribute("tabindex", number ? "-1" : "0");
    item.addEventListener("click", () => choose(item));
    item.addEventListener("keydown", (event) => {
      const last = items.length - 1;
      const next = {
        ArrowRight: Math.min(number + 1, last), ArrowDown: Math.min(number + 1, last),
        ArrowLeft: Math.max(number - 1, 0), ArrowUp: Math.max(number - 1, 0), Home: 0, End: last,
      }[event.key];
      if (next !== undefined) reach(items[next]);
      else if (event.key === "Enter" || event.key === " ") choose(item);
      else return;
      event.preventDefault();
    });
  });
  panel.addEventListener("keydown", (event) => { if (event.key === "Escape") leave(); });
})();
