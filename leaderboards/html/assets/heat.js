// Locks by attacks: recovery in each cell, by number first and by shade second.
const heatMap = (lock, here) => {
  const group = groupOf(lock);
  const locks = D.locks.map((_, index) => index).filter((index) => groupOf(index) === group && (here !== null || shownLocks().includes(index)));
  const within = (cell) => !state.knowledge || knowledgeOf(cell) <= LEVELS.indexOf(state.knowledge);
  const found = new Map();  // attack -> lock -> what became of it
  const put = (attack, index, value) => {
    if (!found.has(attack)) found.set(attack, new Map());
    if (!found.get(attack).has(index)) found.get(attack).set(index, value);
  };
  for (const index of locks) {
    for (const one of D.locks[index].attacks) if (within(one.cells[0])) put(one.label, index, { ...one, cell: one.cells[0] });
    for (const [cell, attack, reason] of D.locks[index].excluded) if (within(cell)) put(attack, index, { cell, reason, out: true, value: null });
  }
  const attacks = [...found.keys()].sort((one, other) => one.localeCompare(other, "en"));
  const caption = `Recovery on ${contextText(lock)}`;
  const rows = locks.map((index) => el("tr", { class: index === here ? "here" : null },
    el("th", { scope: "row", class: "lock" }, index === here ? lockNames[index] : lockLink(index)),
    ...attacks.map((attack) => heatCell(found.get(attack).get(index)))));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", { class: "heat" }, el("caption", {}, caption),
      el("thead", {}, el("tr", {}, el("th", { scope: "col", class: "lock" }, "lock"), ...attacks.map((attack) => el("th", { scope: "col" }, attack)))),
      el("tbody", {}, ...rows)));
};

const heatCell = (one) => {
  if (!one) return el("td", { class: "none" }, hiddenText("not run"));
  const mark = one.out ? "n/c" : one.memory ? "oom" : one.value === null ? "undef." : one.value.toFixed(2) + (one.collapsed ? " c" : "");
  const title = one.out ? `not counted: ${one.reason}` : one.memory ? "ran out of memory" : one.text + (one.collapsed ? ", collapsed" : "") + (one.reason ? `; ${one.reason}` : "");
  const cell = el("td", { class: one.out || one.value === null ? "none" : null, title },
    el("a", { href: goTo("cell", D.ids[one.cell]), "aria-label": `${mark}, ${title}` }, mark));
  if (!one.out && one.value !== null) cell.style.setProperty("--heat", Math.min(1, Math.max(0, one.value)).toFixed(3));
  return cell;
};
