"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
(() => {
  const fields = data.event_fields;
  const texts = new Set(data.event_text_fields);
  const at = Object.fromEntries(fields.map((name, number) => [name, number]));
  const get = (event, name) => {
    const value = event[at[name]];
    return value !== null && texts.has(name) ? data.strings[value] : value;
  };
  const count = (value) => (value === null ? "" : value.toLocaleString("en-US"));
  const time = (value) => (value === null ? "" : new Date(value).toISOString().slice(0, 19).replace("T", " "));
  const changed = (event) => {
    const part = (sign, name) => (get(event, name) ? sign + count(get(event, name)) : "");
    return [part("+", "rows_added"), part("~", "rows_updated"), part("-", "rows_deleted")].filter(Boolean).join(" ");
  };
  const rowsOf = (event) => ["rows_added", "rows_updated", "rows_deleted"].reduce((sum, name) => sum + (get(event, name) || 0), 0);
  const text = (name) => (event) => get(event, name) || "";
  const number = (name) => (event) => count(get(event, name));
  const raw = (name) => (event) => get(event, name);
  const result = (event) => {
    if (get(event, "result") !== "error") return get(event, "result") || "";
    return "error: " + (get(event, "error_type") || "unknown") + ", landed " + (get(event, "landed") || "unknown");
  };
  // name, shown text, value to sort by, aligned to the right
  const unbroken = new Set(["time", "run", "operation"]);
  const columns = [
    ["time", (event) => time(get(event, "time_ms")), raw("time_ms")],
    ["job", text("job"), text("job")],
    ["run", text("run_id"), text("run_id")],
    ["table", text("table"), text("table")],
    ["operation", text("operation"), text("operation")],
    ["result", result, result],
    ["version", number("version"), raw("version"), true],
    ["rows", changed, rowsOf, true],
    ["bytes", number("bytes_added"), raw("bytes_added"), true],
    ["retries", number("retries"), raw("retries"), true],
    ["ms", number("duration_ms"), raw("duration_ms"), true],
    ["message", text("message"), text("message")],
    ["reason", text("reason"), text("reason")],
    ["code", text("code"), text("code")],
  ];
  const SIZE = 100;
  const filters = { run: "run_id", table: "table_place", job: "job", result: "result" };
  const state = { sort: 0, isDown: true, page: 0, chosen: {}, query: "" };
  const searched = new Map();
  const search = (event) => {
    if (!searched.has(event)) {
      searched.set(event, columns.map((column) => column[1](event)).join("\n").toLowerCase());
    }
    return searched.get(event);
  };
  const byId = (id) => document.getElementById(id);
  const input = byId("filter");

  function matching() {
    const wanted = state.query.trim().toLowerCase();
    const pairs = Object.entries(state.chosen);
    const found = data.events.filter((event) =>
      pairs.every(([name, value]) => {
        const has = get(event, filters[name]);
        return has === value || (name === "run" && has !== null && has.startsWith(value));
      }) && (!wanted || search(event).includes(wanted)));
    const value = columns[state.sort][2];
    const sign = state.isDown ? -1 : 1;
    const isEmpty = (each) => each === null || each === "";
    return found.map((event) => [value(event), event]).sort(([a], [b]) => {
      if (isEmpty(a) || isEmpty(b)) return isEmpty(a) - isEmpty(b);
      return sign * (a < b ? -1 : a > b ? 1 : 0);
    }).map((pair) => pair[1]);
  }

  function make(name, content, properties) {
    const made = document.createElement(name);
    if (content !== undefined && content !== null) made.textContent = content;
    return Object.assign(made, properties);
  }

  function head() {
    const row = make("tr");
    columns.forEach(([name, , , isRight], position) => {
      const cell = make("th", null, { scope: "col", className: isRight ? "n" : "" });
      const isSorted = state.sort === position;
      if (isSorted) cell.setAttribute("aria-sort", state.isDown ? "descending" : "ascending");
      const button = make("button", name + (isSorted ? (state.isDown ? " \u25bc" : " \u25b2") : ""), { type: "button" });
      button.addEventListener("click", () => {
        state.isDown = isSorted ? !state.isDown : position === 0;
        state.sort = position;
        state.page = 0;
        show();
        byId("rows").querySelectorAll("th button")[position].focus();
      });
      cell.append(button);
      row.append(cell);
    });
    return row;
  }

  function line(event) {
    const row = make("tr", null, { className: get(event, "result") === "error" ? "failed" : "" });
    for (const [name, shown, , isRight] of columns) {
      const cell = make("td", null, { className: isRight ? "n" : unbroken.has(name) ? "w" : name === "message" ? "m" : "" });
      let inner = make("bdi", shown(event));
      if (!inner.textContent) inner = make("span");
      if (name === "run" && get(event, "run_id")) {
        const link = make("a", null, { href: "#run=" + encodeURIComponent(get(event, "run_id")), title: get(event, "run_id") });
        inner.textContent = get(event, "run_id").slice(0, 13);
        link.append(inner);
        inner = link;
      }
      if (name === "table") cell.title = get(event, "table_place") || "";
      cell.append(inner);
      row.append(cell);
    }
    return row;
  }

  function show() {
    const found = matching();
    const pages = Math.max(Math.ceil(found.length / SIZE), 1);
    state.page = Math.min(state.page, pages - 1);
    const first = state.page * SIZE;
    const shown = found.slice(first, first + SIZE);
    const table = make("table");
    const caption = make("caption", "Events" + (found.length ? " " + count(first + 1) + " to " + count(first + shown.length) : ""));
    const top = make("thead");
    top.append(head());
    const body = make("tbody");
    shown.forEach((event) => body.append(line(event)));
    table.append(caption, top, body);
    byId("rows").replaceChildren(table);
    byId("count").textContent = count(found.length) + " of " + count(data.events.length) + (data.events.length === 1 ? " event" : " events");
    byId("previous").disabled = state.page === 0;
    byId("next").disabled = state.page >= pages - 1;
    const pairs = Object.entries(state.chosen);
    byId("chosen").hidden = pairs.length === 0;
    byId("chosen").textContent = "Only " + pairs.map(([name, value]) => name + " " + value).join(", ");
    const run = state.chosen.run;
    document.querySelectorAll(".bar[data-run]").forEach((bar) =>
      bar.classList.toggle("faded", run !== undefined && !bar.dataset.run.startsWith(run)));
  }

  function follow() {
    const hash = location.hash.slice(1);
    if (hash && !hash.includes("=")) return;
    const wanted = new Map();
    for (const part of hash.split("&")) {
      const split = part.indexOf("=");
      if (split < 1) continue;
      let value = part.slice(split + 1);
      try { value = decodeURIComponent(value); } catch { /* the text as it was typed */ }
      wanted.set(part.slice(0, split), value);
    }
    state.chosen = {};
    for (const name of Object.keys(filters)) {
      if (wanted.get(name)) state.chosen[name] = wanted.get(name);
    }
    state.query = wanted.get("q") || "";
    input.value = state.query;
    state.page = 0;
    show();
    if (wanted.size) {
      byId("events").scrollIntoView();
      byId("events").focus({ preventScroll: true });
    }
  }

  function address() {
    const pairs = Object.entries(state.chosen);
    if (state.query) pairs.push(["q", state.query]);
    const hash = pairs.map(([name, value]) => name + "=" + encodeURIComponent(value)).join("&");
    history.replaceState(null, "", hash ? "#" + hash : "#events");
  }

  input.addEventListener("input", () => {
    state.query = input.value;
    state.page = 0;
    show();
    address();
  });
  byId("clear").addEventListener("click", () => {
    state.chosen = {};
    state.query = input.value = "";
    state.page = 0;
    show();
    address();
  });
  byId("previous").addEventListener("click", () => { state.page -= 1; show(); });
  byId("next").addEventListener("click", () => { state.page += 1; show(); });
  document.querySelectorAll(".bar[data-run]").forEach((bar) =>
    bar.addEventListener("click", () => { location.hash = "run=" + encodeURIComponent(bar.dataset.run); }));
  window.addEventListener("hashchange", follow);
  follow();
  if (!location.hash || !location.hash.includes("=")) show();
})();
