// One table component: sortable headers, pages of rows, and rows that open.
const compare = (one, other) => (typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true }));

const sorted = (rows, key, down) => {
  if (!key) return rows;
  const empty = (value) => value === null || value === undefined || value === "" || value === "-";
  return rows.map((row) => [key(row), row]).sort(([one], [other]) =>
    empty(one) || empty(other) ? empty(one) - empty(other) : (down ? -1 : 1) * compare(one, other)).map(([, row]) => row);
};

// columns: [{title, label, sort(row), show(row) -> node or text, cls, head}]; names.sort and names.down are keys of the state
const sortable = ({ caption, columns, rows, names, size, opened }) => {
  const active = columns.find((one) => one.title === state[names.sort]);
  const ordered = sorted(rows, active && active.sort, state[names.down] === "1");
  const pages = size ? Math.max(1, Math.ceil(ordered.length / size)) : 1;
  const page = size ? Math.min(Number(state.page) || 0, pages - 1) : 0;
  const shown = size ? ordered.slice(page * size, (page + 1) * size) : ordered;
  const heads = columns.map((one) => {
    const down = state[names.down] === "1";
    const press = () => {
      const first = one.sort && rows.length && typeof rows.map(one.sort).find((value) => value !== null) === "number";
      const next = one === active ? !down : first && one.title !== "rank";
      change({ [names.sort]: one.title, [names.down]: next ? "1" : "", page: "0" });
      say(`Sorted by ${one.title}, ${next ? "descending" : "ascending"}`);
    };
    const order = one === active ? (down ? "descending" : "ascending") : null;
    return el("th", { scope: "col", class: one.cls, "aria-sort": order },
      el("button", { type: "button", "data-key": `${names.sort}/${one.title}`, onclick: press }, one.label || one.title));
  });
  const body = el("tbody", {}, ...shown.flatMap((row) => bodyRows(row, columns, opened)));
  const table = el("table", {}, el("caption", {}, caption), el("thead", {}, el("tr", {}, ...heads)), body);
  const scroll = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table);
  return el("div", {}, scroll, pages > 1 ? pager(page, pages, ordered.length) : null);
};

const bodyRows = (row, columns, opened) => {
  const cells = columns.map((one) => {
    const value = one.show(row);
    return el(one.head ? "th" : "td", { class: one.cls, scope: one.head ? "row" : null }, ...(Array.isArray(value) ? value : [value]));
  });
  const line = el("tr", {}, ...cells);
  if (!opened) return [line];
  const detail = el("tr", { class: "detail", hidden: true }, el("td", { class: "detail", colspan: columns.length }));
  const button = line.querySelector("button.open");
  button.addEventListener("click", () => {
    detail.hidden = !detail.hidden;
    button.setAttribute("aria-expanded", String(!detail.hidden));
    if (!detail.hidden && !detail.firstChild.firstChild) detail.firstChild.append(el("div", {}, ...opened(row)));
  });
  return [line, detail];
};

const pager = (page, pages, total) => {
  const step = (by, label) => el("button", { type: "button", "data-key": `page${by}`, disabled: page + by < 0 || page + by >= pages,
    onclick: () => change({ page: String(page + by) }) }, label);
  return el("div", { class: "pager" }, step(-1, "Previous"), `page ${page + 1} of ${pages}, ${total} rows`, step(1, "Next"));
};

const plainTable = (caption, heads, rows, numeric = true) => el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
  el("table", {}, el("caption", {}, caption),
    el("thead", {}, el("tr", {}, ...heads.map((head, index) => el("th", { scope: "col", class: numeric && index ? "num" : "" }, head)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((value, index) =>
      index ? el("td", { class: numeric ? "num" : value.length > 30 ? "wide" : "" }, value) : el("th", { scope: "row" }, value)))))));
