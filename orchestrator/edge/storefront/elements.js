// Elements for both pages: properties and attributes are set, text stays text, markup is never parsed.
"use strict";

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "data") Object.assign(element.dataset, value);
    else if (name.startsWith("aria-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function hash(text) {
  let h = 2166136261;
  for (const character of text) h = Math.imul(h ^ character.codePointAt(0), 16777619);
  return h >>> 0;
}

// No pictures come with a shop's data: a thumbnail's colours are its category's (or, without one, its title's last
// word, which tends to name the thing), its shapes its own.
let gradients = 0;
function thumbnail(id, category, title) {
  const path = (category || (title || id).trim().split(/\s+/).pop()).split(" > ");
  const hue = hash(path[0]) % 360;
  const turn = (hash(path[path.length - 1]) % 50) - 25;
  let seed = hash(id) || 1;
  const next = () => { seed ^= seed << 13; seed ^= seed >>> 17; seed ^= seed << 5; return (seed >>> 0) / 4294967296; };
  const name = `g${++gradients}`;
  const tone = (light, extra = 0) => `hsl(${(hue + turn + extra + 360) % 360} 52% ${light}%)`;
  const shapes = [0, 1, 2].map(() => {
    const [x, y, r, fill] = [30 + next() * 140, 20 + next() * 110, 16 + next() * 34, tone(58 + next() * 28, next() * 40)];
    const look = { fill, opacity: 0.55 + next() * 0.4 };
    const kind = next();
    if (kind < 0.4) return draw("circle", { cx: x, cy: y, r, ...look });
    const turned = { transform: `rotate(${Math.round(next() * 90)} ${x} ${y})`, ...look };
    if (kind < 0.75) return draw("rect", { x: x - r, y: y - r, width: 2 * r, height: 2 * r, rx: 7, ...turned });
    return draw("path", { d: `M${x - r} ${y + r}L${x} ${y - r}L${x + r} ${y + r}Z`, "stroke-linejoin": "round", ...turned });
  });
  return draw("svg", { viewBox: "0 0 200 150", preserveAspectRatio: "xMidYMid slice", "aria-hidden": "true" },
    draw("defs", {}, draw("linearGradient", { id: name, x1: 0, y1: 0, x2: 1, y2: 1 },
      draw("stop", { offset: 0, "stop-color": tone(46) }), draw("stop", { offset: 1, "stop-color": tone(30, 30) }))),
    draw("rect", { width: 200, height: 150, fill: `url(#${name})` }), ...shapes);
}
