// One cell: scores, costs, flags, the resolved spec and the command that makes it again.
const cellBody = (cell) => {
  const one = D.details[cell];
  const lines = [];
  if (one.reason !== undefined) lines.push(el("p", { class: "warn" }, pooled(one.reason)));
  lines.push(el("h4", {}, "Flags"), one.flags.length ? el("ul", { class: "plain" }, ...one.flags.map(pooled).map(([severity, flag, detail]) =>
    el("li", {}, el("span", { class: severity }, `${severity}: ${flag}`), `: ${detail}`))) : el("p", { class: "empty" }, "none"));
  lines.push(plainTable(`Scores on the test split (${pooled(one.unit)}), with 95 % intervals`, ["", ...D.sides], [
    ["score", ...one.score.map(pooled)], ["utility kept", ...one.kept.map(pooled), "-"]]));
  const gains = [["gain, attacked - locked", pooled(one.gains[0]), ""], ["reference gain, reference - base", pooled(one.gains[1]), ""]];
  const recover = (one.recover === undefined ? [] : pooled(one.recover)).map(([level, cost, note]) => [`cost to recover ${level}`, cost, note]);
  lines.push(plainTable("Gains and cost to recover", ["", "value", ""], [...gains, ...recover]));
  const bills = D.stages.map((name, index) => [name, one.bills[index]]).filter(([, bill]) => bill !== null);
  if (bills.length) lines.push(plainTable("Bills", ["", ...bills.map(([name]) => name)], D.bill.map((label, line) =>
    [label, ...bills.map(([, bill]) => pooled(bill)[line])]).filter((row) => row.slice(1).some((text) => text !== "-" && text !== "0" && text !== "0 B"))));
  lines.push(block("Resolved spec, and the command that makes this cell again", commandOf(cell)));
  lines.push(el("p", { class: "note" }, `It makes cell ${D.ids[cell]}; with --dry-run it only prints the spec. What is between the first line and the last can be saved as a file for --config.`));
  lines.push(el("h4", {}, "Where it comes from"), el("ul", { class: "plain" }, ...pooled(one.about).map(([key, value]) => el("li", {}, `${key}: `, el("code", {}, value)))));
  return lines;
};
const block = (title, text) => el("div", {}, el("h4", {}, title), el("pre", { tabindex: "0", "aria-label": title }, text), copyButton(text));

const renderCell = () => {
  const cell = D.ids.findIndex((id) => id === state.id || (state.id.length >= 8 && id.startsWith(state.id)));
  if (cell < 0) return lost(`There is no cell ${state.id} here.`);
  const lock = D.locks.findIndex((one) => one.attacks.some((attack) => attack.cells.includes(cell)) || one.excluded.some(([index]) => index === cell));
  const back = el("p", { class: "back" }, el("a", { href: goTo("board", "") }, "All locks"), ...(lock < 0 ? [] : [" / ", lockLink(lock)]));
  const names = ["model", "defense", "attack", "task"].map((title) => textOf("cells", title, cell)).join(" / ");
  const facts = D.cells.filter((one) => !["cell", "model", "defense", "attack", "task"].includes(one.title)).map((one) => [one.title, pooled(one.text[cell]) || "none"]);
  byId("view-cell").replaceChildren(back, el("h1", { tabindex: "-1" }, names), el("p", { class: "counts" }, `cell ${D.ids[cell]}`), factList(facts), ...cellBody(cell));
};
const factList = (facts) => el("dl", { class: "facts" }, ...facts.map(([name, ...value]) => el("div", {}, el("dt", {}, name), el("dd", {}, ...value))));
const lost = (text) => byId(`view-${state.view}`).replaceChildren(el("p", { class: "back" }, el("a", { href: "#" }, "All locks")), el("h1", { tabindex: "-1" }, text));
