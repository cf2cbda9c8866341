// What is shown, kept in the address so that every view can be linked to.
const DEFAULTS = { view: "board", id: "", model: "", task: "", budget: "", knowledge: "", q: "", sort: "", down: "", cellsort: "", celldown: "", page: "0" };
const FILTERS = ["model", "task", "budget", "knowledge"];
let state = { ...DEFAULTS };

const readState = () => {
  const found = new URLSearchParams(location.hash.slice(1));
  state = { ...DEFAULTS };
  for (const key of Object.keys(DEFAULTS)) if (found.has(key)) state[key] = found.get(key);
  if (!["board", "lock", "cell"].includes(state.view)) state.view = "board";
};
const addressOf = (changes) => {
  const next = Object.entries({ ...state, ...changes }).filter(([key, value]) => value !== DEFAULTS[key]);
  return "#" + new URLSearchParams(next);
};
const change = (changes) => {  // a setting of this view: no new entry in the history
  const address = addressOf(changes);
  state = { ...state, ...changes };
  history.replaceState(null, "", address);
  render();
};
const goTo = (view, id) => addressOf({ view, id, page: "0", cellsort: "", celldown: "", q: view === "board" ? state.q : "" });
const ceiling = () => state.knowledge || "code";
