// Charts by Chart.js. Each has a text alternative: its numbers as a table below it.
const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#b8569b", "#8a6d00", "#3aa6dd", "#7f7f7f", "#a4262c", "#5b4fc4", "#4d8c2b", "#c47f00", "#00808a"];
const SHAPES = ["circle", "rect", "triangle", "rectRot", "star", "crossRot", "rectRounded", "cross", "dash"];
const MOST = 12;
let drawn = [];

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const clearCharts = () => { drawn.forEach((chart) => chart.destroy()); drawn = []; };

const whiskers = { id: "whiskers", beforeDatasetsDraw(chart) {
  chart.data.datasets.forEach((set, index) => {
    if (!chart.isDatasetVisible(index)) return;
    chart.getDatasetMeta(index).data.forEach((point, at) => {
      const { low, high } = set.data[at];
      if (low === undefined || low === null || high === null) return;
      const y = chart.scales.y;
      chart.ctx.save();
      chart.ctx.strokeStyle = set.borderColor;
      chart.ctx.lineWidth = 1.5;
      chart.ctx.beginPath();
      chart.ctx.rect(chart.chartArea.left, chart.chartArea.top, chart.chartArea.width, chart.chartArea.height);
      chart.ctx.clip();
      chart.ctx.beginPath();
      chart.ctx.moveTo(point.x, y.getPixelForValue(low));
      chart.ctx.lineTo(point.x, y.getPixelForValue(high));
      chart.ctx.stroke();
      chart.ctx.restore();
    });
  });
} };

const look = (index) => ({ borderColor: COLOURS[index % COLOURS.length], backgroundColor: COLOURS[index % COLOURS.length], pointStyle: SHAPES[index % SHAPES.length] });
const axis = (title, more) => ({ title: { display: true, text: title, color: css("--soft") }, grid: { color: css("--line") }, border: { color: css("--strong") },
  ticks: { color: css("--soft"), maxRotation: 0, autoSkipPadding: 12, ...(more && more.callback ? { callback: more.callback } : {}) }, ...(more && more.scale) });
const si = (value) => {
  const steps = [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const step = steps.find(([size]) => Math.abs(value) >= size);
  return step ? `${Number((value / step[0]).toPrecision(3))} ${step[1]}` : String(Number(value.toPrecision(3)));
};
const bytes = (value) => {
  const power = Math.min(4, Math.max(0, Math.floor(Math.log2(value || 1) / 10)));
  return `${Number((value / 2 ** (10 * power)).toPrecision(3))} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
};
const onlyRound = (show) => (value) => ([1, 2, 5].includes(Number(value.toPrecision(6)) / 10 ** Math.floor(Math.log10(value) + 1e-9)) ? show(value) : "");
const powersOfTwo = (scale) => {  // ticks where bytes are round
  const from = Math.ceil(Math.log2(scale.min)), to = Math.floor(Math.log2(scale.max)), step = Math.max(1, Math.ceil((to - from) / 8));
  scale.ticks = [];
  for (let power = from; power <= to; power += step) scale.ticks.push({ value: 2 ** power });
};
const log = (show) => ({ callback: onlyRound(show), scale: { type: "logarithmic" } });

// figure: title, what the axes say, datasets (named ones appear in the legend), and the rows of the table below
const chartFigure = ({ title, note, kind = "scatter", data, x, y, heads, rows, empty, control }) => {
  const figure = el("figure", {}, el("h3", {}, title), el("p", { class: "axis" }, note), ...(control ? [control] : []));
  if (!rows.length) { figure.append(el("p", { class: "empty" }, empty)); return figure; }
  if (x.type === "logarithmic") {  // no mark on the frame
    const xs = data.datasets.flatMap((set) => set.data.map((point) => point.x));
    x = { ...x, min: Math.min(...xs) / 1.3, max: Math.max(...xs) * 1.3 };
  }
  const canvas = el("canvas", { role: "img", "aria-label": `${title}. ${note} The numbers are in the table below.` });
  const shown = rows.slice(0, 400);
  figure.append(el("div", { class: "canvas" }, canvas), el("details", {}, el("summary", {}, "As a table"),
    plainTable(title + (rows.length > shown.length ? `, first ${shown.length} of ${rows.length}` : ""), heads, shown.map((row) => row.map((value) => (value === null || value === undefined ? "-" : String(value)))))));
  drawn.push(new Chart(canvas, { type: kind, data, plugins: [whiskers], options: {
    animation: false, responsive: true, maintainAspectRatio: false, scales: { x, y },
    plugins: {
      legend: { display: data.datasets.some((set) => set.label), position: "bottom", labels: { color: css("--ink"), usePointStyle: true, boxHeight: 7, filter: (item) => Boolean(item.text) } },
      tooltip: { callbacks: { label: (item) => item.raw && item.raw.tip ? item.raw.tip : `${item.dataset.name || item.dataset.label || ""} ${item.formattedValue}` } },
    },
  } }));
  return figure;
};
