// Wiring: filters to the state, the state to the view.
let last = null;

const render = () => {
  const key = document.activeElement && document.activeElement.dataset.key;
  const place = `${state.view}/${state.id}`, moved = last !== null && last !== place;
  for (const name of ["board", "lock", "cell"]) byId(`view-${name}`).hidden = name !== state.view;
  if (state.view !== "board") byId(`view-${state.view}`).replaceChildren();
  clearCharts();
  ({ board: renderBoard, lock: renderLock, cell: renderCell })[state.view]();
  const again = !moved && key && [...document.querySelectorAll("[data-key]")].find((node) => node.dataset.key === key);
  if (again) again.focus();
  if (moved) {
    const heading = document.querySelector(`#view-${state.view} h1`);
    scrollTo(0, 0);
    if (heading) heading.focus({ preventScroll: true });
  }
  last = place;
};

const fillFilters = () => {
  for (const title of FILTERS.slice(0, 3)) {
    const values = [...new Set([...column("board", title).text, ...column("cells", title).text])].map(pooled).sort((one, other) => one.localeCompare(other, "en"));
    byId(`f-${title}`).replaceChildren(el("option", { value: "" }, "all"), ...values.map((value) => el("option", { value }, value)));
    byId(`f-${title}`).closest("label").hidden = values.length < 2;
  }
};
const showFilters = () => {
  for (const title of FILTERS) byId(`f-${title}`).value = state[title];
  byId("f-text").value = state.q;
};

const start = () => {
  fillFilters();
  byId("notes").replaceChildren(...(D.notes.length ? D.notes : ["none"]).map((text) => el("li", {}, text)));
  for (const title of FILTERS) byId(`f-${title}`).addEventListener("change", (event) => change({ [title]: event.target.value, page: "0" }));
  let wait = 0;
  byId("f-text").addEventListener("input", (event) => {
    clearTimeout(wait);
    wait = setTimeout(() => change({ q: event.target.value, page: "0" }), 120);
  });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", (event) => { event.preventDefault(); change({ ...DEFAULTS }); showFilters(); });
  byId("skip").addEventListener("click", (event) => { event.preventDefault(); byId("main").focus(); });
  addEventListener("hashchange", () => { readState(); showFilters(); render(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
  readState();
  showFilters();
  render();
};
start();
