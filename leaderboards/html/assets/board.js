// The first view: filters, ranking, heat map, all cells.
const matches = (table, row) => FILTERS.slice(0, 3).every((title) => !state[title] || textOf(table, title, row) === state[title]);
const finds = (...texts) => !state.q || texts.some((text) => text.toLowerCase().includes(state.q.toLowerCase()));
const shownLocks = () => D.locks.map((_, lock) => lock).filter((lock) => matches("board", lock)
  && finds(lockNames[lock], D.locks[lock].views[ceiling()].worst, ...D.locks[lock].attacks.map((one) => one.label)));
const shownCells = (ids) => ids.filter((cell) => matches("cells", cell) && (!state.knowledge || knowledgeOf(cell) <= LEVELS.indexOf(state.knowledge))
  && finds(textOf("cells", "defense", cell), textOf("cells", "attack", cell), D.ids[cell]));

const MINOR = new Set(["perplexity", "KL", "lock FLOPs", "kept bytes", "recover 0.9 at", "attacks", "out of memory"]);
const LABELS = { defense: "lock", robustness: "robustness, best known", standard: "standard suite", "kept bytes": "kept for backward" };
const varies = (table, title, rows) => new Set(rows.map((row) => column(table, title).text[row])).size > 1;

const rankingColumns = (locks) => {
  const view = (lock) => D.locks[lock].views[ceiling()];
  const special = {
    rank: { sort: (lock) => view(lock).rank, show: (lock) => rankText(lock, ceiling()), cls: "rank num" },
    defense: { show: (lock) => [lockLink(lock), el("span", { class: "under phone" }, varying(lock, locks))], cls: "lock", head: true },
    robustness: { sort: (lock) => view(lock).low, show: (lock) => [el("span", { class: "figure" }, view(lock).text), intervalBar(view(lock))].filter(Boolean) },
    standard: { show: (lock) => standardText(lock) },
    "worst attack": { sort: (lock) => view(lock).worst, show: (lock) => view(lock).worst },
    attacks: { sort: (lock) => view(lock).n, show: (lock) => String(view(lock).n) },
  };
  return D.board.filter((one) => !one.context || varies("board", one.title, locks)).map((one) => ({
    title: one.title, label: LABELS[one.title],
    sort: one.number ? (lock) => one.number[lock] : (lock) => pooled(one.text[lock]),
    show: (lock) => pooled(one.text[lock]),
    cls: [one.number && !["robustness", "standard"].includes(one.title) ? "num" : "", MINOR.has(one.title) || one.context ? "minor" : ""].join(" ").trim(),
    ...special[one.title],
    ...(special[one.title] && MINOR.has(one.title) ? { cls: "num minor" } : {}),
  }));
};
const varying = (lock, locks) => ["model", "task", "budget"].filter((title) => varies("board", title, locks)).map((title) => textOf("board", title, lock)).join(", ");
const standardText = (lock) => {
  const one = D.locks[lock].standard;
  if (!one.n) return "-";
  return [el("span", { class: "figure" }, one.text), el("span", { class: "under figure" }, `${one.suite - one.missing.length} of ${one.suite} attacks`)];
};
const rankText = (lock, view) => {
  const { rank } = D.locks[lock].views[view];
  if (rank === null) return "-";
  return isTied(lock, view) ? [String(rank), el("span", { "aria-hidden": "true" }, " ="), hiddenText(" tied")] : String(rank);
};
const lockLink = (lock) => el("a", { href: goTo("lock", D.locks[lock].key), "data-key": `lock/${D.locks[lock].key}` }, lockNames[lock]);
const contextText = (lock) => contexts("board", lock).map((text, index) => `${["model", "task", "budget"][index]} ${text}`).join(", ");

const renderRanking = () => {
  const locks = shownLocks();
  const same = locks.length && new Set(locks.map(groupOf)).size === 1;
  const caption = locks.length === 0 ? "No lock matches the filters"
    : same ? `Locks on ${contextText(locks[0])}` : "Locks by model, task and budget; ranks are within each of these";
  byId("ranking").replaceChildren(sortable({ caption, columns: rankingColumns(locks), rows: locks, names: { sort: "sort", down: "down" } }));
  byId("f-count").textContent = `${locks.length} of ${D.locks.length} locks`;
};

const cellColumns = (ids, withLock) => D.cells.filter((one) => (!one.context || varies("cells", one.title, ids)) && (withLock || one.title !== "defense")).map((one) => ({
  title: one.title, label: LABELS[one.title],
  sort: one.number ? (cell) => one.number[cell] : (cell) => pooled(one.text[cell]),
  show: one.title === "cell" ? (cell) => el("button", { type: "button", class: "open", "aria-expanded": "false", "aria-label": `details of cell ${D.ids[cell]}` }, D.ids[cell].slice(0, 8)) : (cell) => pooled(one.text[cell]),
  cls: [one.number ? "num" : "", one.title === "flags" ? "flags" : "", ["over reference", "kept", "reference kept", "knows"].includes(one.title) || one.context ? "minor" : ""].join(" ").trim(),
}));
const cellsTable = (ids, withLock) => sortable({ caption: `${ids.length} cells`, columns: cellColumns(ids, withLock), rows: ids,
  names: { sort: "cellsort", down: "celldown" }, size: 25, opened: (cell) => cellBody(cell) });

const renderBoard = () => {
  renderRanking();
  const groups = [...new Map(shownLocks().map((lock) => [groupOf(lock), lock])).values()];
  byId("heat").replaceChildren(...groups.slice(0, 4).map((lock) => heatMap(lock, null)),
    ...(groups.length > 4 ? [el("p", { class: "note" }, `${groups.length - 4} more: filter by model, task or budget to see them.`)] : []));
  byId("cells").replaceChildren(cellsTable(shownCells(D.ids.map((_, cell) => cell)), true));
};
