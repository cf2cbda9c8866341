// Elements. Text from records only ever goes through text nodes and attributes set by name: nothing parses it as HTML.
const el = (tag, props, ...children) => {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};

const svg = (tag, props, ...children) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(props)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};

const byId = (id) => document.getElementById(id);
const hiddenText = (text) => el("span", { class: "hidden" }, text);
const say = (text) => { byId("live").textContent = text; };

// A drawn interval: a line from low to high, a dot at the value, ticks at 0 and 1. The same numbers stand beside it.
const intervalBar = ({ value, low, high }) => {
  if (value === null) return null;
  const x = (number) => 4 + 128 * (Math.min(1.15, Math.max(-0.25, number)) + 0.25) / 1.4;
  const parts = [svg("line", { class: "axis-line", x1: 4, x2: 132, y1: 7, y2: 7 })];
  for (const at of [0, 1]) parts.push(svg("line", { class: "tick", x1: x(at), x2: x(at), y1: 2, y2: 12 }));
  if (low !== null && high !== null) parts.push(svg("line", { class: "range", x1: x(low), x2: x(high), y1: 7, y2: 7 }));
  parts.push(svg("circle", { class: "dot", cx: x(value), cy: 7, r: 3 }));
  return svg("svg", { class: "interval", viewBox: "0 0 136 14", "aria-hidden": "true" }, ...parts);
};

const copyButton = (text) => el("button", { type: "button", class: "copy", onclick: async (event) => {
  const button = event.currentTarget;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    say("Copied to the clipboard");
  } catch {  // no permission: select it, so that one key copies it
    const pre = button.parentElement.querySelector("pre");
    getSelection().selectAllChildren(pre);
    button.textContent = "Selected: copy with Ctrl+C";
  }
} }, "Copy");
