// The page of a lock: its figures, its charts, and its cells.
const strongest = (lock) => D.locks[lock].attacks.slice(0, MOST);
const first = (outcome, key) => outcome.cells.map((cell) => D.details[cell][key]).find((value) => value !== undefined && value !== null);
const mark = (outcome, x) => ({ x, y: outcome.value, low: outcome.low, high: outcome.high, tip: `${outcome.label}: ${outcome.text}${outcome.collapsed ? ", collapsed" : ""}` });

const flopsChart = (lock) => {
  const sets = [], rows = [];
  strongest(lock).forEach((outcome, index) => {
    const path = first(outcome, "path"), spent = first(outcome, "flops");
    const points = path === undefined ? [] : pooled(path);
    points.forEach(([flops, value]) => rows.push([outcome.label, "on the way", si(flops), value]));
    sets.push({ ...look(index), name: outcome.label, data: points.filter(([flops]) => flops > 0).map(([x, y]) => ({ x, y })), showLine: true, borderWidth: 1.5, pointRadius: 1.5 });
    if (spent && outcome.value !== null) {
      rows.push([outcome.label, "test split", si(spent), outcome.text]);
      sets.push({ ...look(index), label: outcome.label, data: [mark(outcome, spent)], pointRadius: 6, pointBorderWidth: 2 });
    }
  });
  return chartFigure({ title: "Recovery against FLOPs", data: { datasets: sets }, rows, heads: ["attack", "", "FLOPs", "recovery"],
    note: "Lines: on the way, selection split, first seed. Marks: the result on the test split at all that was spent, undo and search included, with 95 % interval.",
    x: axis("FLOPs of the attacker (log)", log(si)), y: axis("recovery", RECOVERY), empty: "No attack here has a recovery and a bill." });
};

const RECOVERY = { scale: { suggestedMin: 0, suggestedMax: 1, grace: "6%" } };
const MEMORIES = ["kept for backward", "largest during backward", "largest on the device"];
const memoryChart = (lock, which = 0) => {
  const sets = [], rows = [];
  strongest(lock).forEach((outcome, index) => {
    const memory = (first(outcome, "memory") || [])[which];
    if (!memory || outcome.value === null) return;
    rows.push([outcome.label, bytes(memory), outcome.text]);
    sets.push({ ...look(index), label: outcome.label, data: [mark(outcome, memory)], pointRadius: 6, pointBorderWidth: 2 });
  });
  const choose = el("select", { "data-key": "memory", onchange: (event) => {
    const old = event.target.closest("figure");
    const next = memoryChart(lock, Number(event.target.value));
    old.replaceWith(next);
    next.querySelector("select").focus();
  } }, ...MEMORIES.map((name, index) => el("option", { value: index, selected: index === which }, name)));
  return chartFigure({ title: "Recovery against memory", data: { datasets: sets }, rows, heads: ["attack", "bytes", "recovery"], control: el("label", { class: "axis" }, "Bytes ", choose),
    note: "Bytes of the attack's training, parameters excluded.", x: axis(`${MEMORIES[which]} (log)`, { callback: bytes, scale: { type: "logarithmic", afterBuildTicks: powersOfTwo } }), y: axis("recovery", RECOVERY), empty: "No attack here has a recovery and counted bytes." });
};

// Trials of searches, scaled so that the untouched base is 0 and the reference's best trial is 1; else whole cells by their rate.
const ratesChart = (lock) => {
  const sets = [], rows = [];
  let colour = 0;
  for (const outcome of strongest(lock)) {
    const found = first(outcome, "search");
    if (found === undefined) continue;
    for (const [side, trials] of Object.entries(pooled(found))) {
      const points = trials.filter(([, score, , rate]) => rate && score !== null).map(([, score, , rate]) => ({ x: rate, y: score })).sort((one, other) => one.x - other.x);
      if (!points.length) continue;
      points.forEach(({ x, y }) => rows.push([outcome.label, side, x, y]));
      sets.push({ ...look(colour), label: `${outcome.label}, ${side === "attacked" ? "locked" : "base"}`, data: points, showLine: true, borderWidth: 1.5, pointRadius: 3, borderDash: side === "attacked" ? [] : [5, 4] });
    }
    colour += 1;
  }
  const note = rows.length ? "Score of each trial of the attackers' searches, selection split; dashed on the base." : "Recovery of whole cells by the learning rate they were given.";
  if (!rows.length) {
    const byName = new Map();
    for (const outcome of D.locks[lock].attacks) {
      const rate = first(outcome, "rate");
      if (rate && outcome.value !== null) byName.set(outcome.name, [...(byName.get(outcome.name) || []), mark(outcome, rate)]);
    }
    [...byName].slice(0, MOST).forEach(([name, points], index) => {
      points.sort((one, other) => one.x - other.x).forEach((point) => rows.push([name, "locked", point.x, point.tip]));
      sets.push({ ...look(index), label: name, data: points, showLine: points.length > 1, borderWidth: 1.5, pointRadius: 5 });
    });
  }
  return chartFigure({ title: "Sensitivity to the learning rate", note, data: { datasets: sets }, rows, heads: ["attack", "on", "learning rate", "score"],
    x: axis("learning rate (log)", log((value) => value.toExponential(0))), y: note.startsWith("Score") ? axis("score, selection split", { scale: { grace: "6%" } }) : axis("recovery", RECOVERY), empty: "No attack here has a learning rate and a score." });
};

const trialsChart = (lock) => {
  const sets = [], rows = [];
  strongest(lock).forEach((outcome, index) => {
    const found = first(outcome, "search");
    if (found === undefined) return;
    for (const [side, trials] of Object.entries(pooled(found))) {
      const points = trials.filter(([, , best]) => best !== null).map(([number, , best]) => ({ x: number + 1, y: best }));
      points.forEach(({ x, y }) => rows.push([outcome.label, side, x, y]));
      sets.push({ ...look(index), label: `${outcome.label}, ${side === "attacked" ? "locked" : "base"}`, data: points, showLine: true, stepped: "before", borderWidth: 1.5, pointRadius: 2, borderDash: side === "attacked" ? [] : [5, 4] });
    }
  });
  return chartFigure({ title: "Best so far over trials", note: "Best score of each attacker's search, selection split; dashed on the base.", data: { datasets: sets }, rows,
    heads: ["attack", "on", "trial", "best score"], x: axis("trials", { callback: (value) => (Number.isInteger(value) ? value : "") }), y: axis("best score", { scale: { grace: "6%" } }), empty: "No attack here searched its hyper-parameters (--set search.trials=20)." });
};

const layersChart = (lock) => {
  const found = D.locks[lock].layers;
  const rows = found === null ? [] : pooled(found);
  return chartFigure({ title: "Distillation error by layer", kind: "bar", note: "Held-out error of each layer that the lock distilled, relative to the layer's output.", rows, heads: ["layer", "error"],
    data: { labels: rows.map(([name]) => name.replace(/^.*?(\d+).*$/, "$1")), datasets: [{ data: rows.map(([, error]) => error), backgroundColor: COLOURS[0], maxBarThickness: 34 }] },
    x: axis("layer", { scale: { type: "category" } }), y: axis("relative error", { scale: { beginAtZero: true } }), empty: "The lock distilled no layer, or its records do not say." });
};

const lockFacts = (lock) => {
  const one = D.locks[lock], best = one.views.code;
  const small = (text) => (text ? el("small", {}, text) : null);
  const board = (title) => textOf("board", title, lock);
  return [
    ["rank", ...[].concat(rankText(lock, "code"))],
    ["robustness, best known", best.text, intervalBar(best), small(best.reason)],
    ["robustness, standard suite", one.standard.n ? one.standard.text : "-", small(one.standard.suite ? `${one.standard.suite - one.standard.missing.length} of ${one.standard.suite} attacks, rank ${one.standard.rank ?? "-"}` : "no suite")],
    ["worst attack", best.worst, small(`best reference: ${one.best_reference}`)],
    ["if a collapse is a failure", one.bounded.text, small(one.bounded.reason)],
    ["utility kept", board("utility kept")], ["perplexity, locked over base", board("perplexity")], ["KL, nats a token", board("KL")],
    ["FLOPs to lock", board("lock FLOPs")], ["bytes kept for backward, over base", board("kept bytes")],
    ...Object.entries(one.recover).map(([level, [cost, note]]) => [`cost to recover ${level}`, cost, small(note)]),
  ];
};

const renderLock = () => {
  const lock = D.locks.findIndex((one) => one.key === state.id);
  if (lock < 0) return lost(`There is no lock ${state.id} here.`);
  const one = D.locks[lock];
  const ids = [...new Set([...one.attacks.flatMap((outcome) => outcome.cells), ...one.excluded.map(([cell]) => cell)])];
  const worst = one.attacks.find((outcome) => outcome.label === one.views.code.worst);
  const view = byId("view-lock");
  view.replaceChildren(
    el("p", { class: "back" }, el("a", { href: goTo("board", "") }, "All locks")),
    el("h1", { tabindex: "-1" }, lockNames[lock]), el("p", { class: "counts" }, contextText(lock)),
    factList(lockFacts(lock)),
    ...(one.warnings.length ? [el("h2", {}, "Warnings"), el("ul", { class: "plain warn" }, ...one.warnings.map((text) => el("li", {}, text)))] : []),
    el("h2", {}, "Attacks"), attackTable(one),
    el("h2", {}, "Charts"), ...(one.attacks.length > MOST ? [el("p", { class: "note" }, `The ${MOST} strongest of ${one.attacks.length} attacks.`)] : []),
    el("div", { class: "charts" }),
    el("h2", {}, "Beside the other locks"), heatMap(lock, lock),
    el("h2", {}, "Cells"), cellsTable(ids, false),
    ...(worst ? [el("h2", {}, "Reproduce the worst attack"), el("p", { class: "note" }, `${worst.label}, cell ${D.ids[worst.cells[0]]}. Every other cell above has its own command.`), block("Command", commandOf(worst.cells[0]))] : []),
  );
  const charts = view.querySelector(".charts");  // in the page before they are drawn: a canvas takes its size from there
  for (const make of [flopsChart, memoryChart, ratesChart, trialsChart, layersChart]) charts.append(make(lock));
};
const attackTable = (one) => {
  const missing = one.standard.missing.length ? [el("p", { class: "note" }, `Of the standard suite, not counted here: ${one.standard.missing.join(", ")}.`)] : [];
  const rows = [...one.attacks.map((outcome) => [outcome.label, outcome.memory ? "out of memory" : outcome.text, outcome.collapsed ? "collapsed" : "", textOf("cells", "knows", outcome.cells[0]), String(outcome.cells.length), outcome.reason]),
    ...one.excluded.map(([cell, attack, reason]) => [attack, "not counted", "", textOf("cells", "knows", cell), "1", reason])];
  return el("div", {}, plainTable("Recovery against the best reference, strongest first", ["attack", "recovery", "model", "knows", "cells", "note"], rows, false), ...missing);
};
