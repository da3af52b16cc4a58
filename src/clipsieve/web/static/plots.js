// Histograms, and the sliders that stand on them.

import { brief, h, later, svg } from "./dom.js";

const STEPS = { ArrowRight: 0.01, ArrowUp: 0.01, ArrowLeft: -0.01, ArrowDown: -0.01, PageUp: 0.1, PageDown: -0.1 };

let held = 0;

// Whether a slider is being dragged: its card must not be drawn anew under the finger.
export const dragging = () => held > 0;

// A position on a histogram, 0 to 1, from a value, and back.
export function scaleOf(score) {
  const [low, high] = [score.edges[0], score.edges[score.edges.length - 1]];
  const [to, from] = score.scale === "log" ? [Math.log, Math.exp] : [(x) => x, (x) => x];
  const [start, end] = [to(low), to(high)];
  const at = (value) => {
    const inner = score.scale === "log" && value <= 0 ? -Infinity : to(value);
    return Math.min(1, Math.max(0, (inner - start) / (end - start)));
  };
  const exact = (place) => from(start + (end - start) * place);
  // With no more digits than a pixel is worth; the ends keep all values on their side.
  const value = (place) => {
    const step = Math.abs(exact(Math.min(place + 0.002, 1)) - exact(Math.max(place - 0.002, 0))) || 1;
    const unit = 10 ** Math.floor(Math.log10(step));
    const turn = place <= 0 ? Math.floor : place >= 1 ? Math.ceil : Math.round;
    const digits = Math.max(0, -Math.floor(Math.log10(unit)));
    return Number((turn(exact(place) / unit) * unit).toFixed(Math.min(digits, 20)));
  };
  return { at, value };
}

// Bars for all images and, within them, for the kept; heights by square root, so that few can be seen beside many.
export function histogram(card, score) {
  const most = Math.sqrt(Math.max(1, ...score.heights));
  const path = (heights) =>
    heights
      .map((n, i) => (n ? `M${i + 0.06} 1V${1 - Math.max(Math.sqrt(n) / most, 0.03)}H${i + 0.94}V1Z` : ""))
      .join("");
  const bins = score.heights.length;
  const picture = svg("svg", { viewBox: `0 0 ${bins} 1`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const kept = svg("path", { class: "kept", d: "" });
  picture.append(svg("path", { class: "every", d: path(score.heights) }), kept);
  card.heights = (heights) => kept.setAttribute("d", path(heights));
  return h("div", { className: "plot", title: "grey: all images, blue: kept; heights by square root" }, picture);
}

export function axis(score) {
  const [low, high] = [score.edges[0], score.edges[score.edges.length - 1]];
  const log = score.scale === "log" ? " (log)" : "";
  return h(
    "p",
    { className: "axis soft" },
    h("span", {}, brief(low)),
    h("span", {}, `median ${brief(score.percentiles[2])}${log}`),
    h("span", {}, brief(high)),
  );
}

// A threshold on a histogram, by pointer, touch and keys. `now` gives its value, `put` takes another, and `rest` hears
// that it stays where it is.
export function slider(box, score, scale, name, { now, put, rest }) {
  const handle = h("button", {
    type: "button",
    className: "handle",
    role: "slider",
    "aria-label": name,
    "aria-valuemin": score.edges[0],
    "aria-valuemax": score.edges[score.edges.length - 1],
  });
  const within = (place) => scale.value(Math.min(1, Math.max(0, place)));
  handle.addEventListener("pointerdown", (event) => {
    handle.setPointerCapture(event.pointerId);
    held += 1;
    handle.focus();
    event.preventDefault();
  });
  handle.addEventListener("pointermove", (event) => {
    if (!handle.hasPointerCapture(event.pointerId)) return;
    const { left, width } = box.getBoundingClientRect();
    put(within((event.clientX - left) / width));
  });
  handle.addEventListener("lostpointercapture", () => {
    held -= 1;
    rest();
  });
  const soon = later(rest, 600);
  handle.addEventListener("keydown", (event) => {
    const ends = { Home: 0, End: 1 };
    if (!(event.key in ends) && !(event.key in STEPS)) return;
    event.preventDefault();
    if (put(within(ends[event.key] ?? scale.at(now()) + STEPS[event.key]))) soon();
  });
  return handle;
}
