// The tiles of images: made once, then told where their image stands; captions are fetched when one comes into view.

import { ask } from "./ask.js";
import { exact, h, middle } from "./dom.js";

const CAPTIONS = 12;
export const STANDINGS = {
  kept: "kept",
  duplicate: "near duplicate",
  dropped: "dropped",
  failed: "failed",
  unknown: "unknown",
};

let run = null;
let open = () => {};
let before = new Map(); // the tiles of the listing before, by row, so that an image that stays is not loaded again
let elements = new Map();
const captions = new Map();
const wanted = new Set();

const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      const row = Number(entry.target.dataset.row);
      if (captions.has(row)) fill(entry.target, captions.get(row));
      else wanted.add(row);
    }
    if (wanted.size) setTimeout(fetchCaptions, 60);
  },
  { rootMargin: "300px" },
);

export const imageAddress = (row, side) => `image/${row}?side=${side}&v=${run.key}`;
export const captionOf = (row) => captions.get(row);
// A document has no captions: what stands beside an image is some of its text.
export const said = (found) => (found?.caption && run.layout === "interleaved" ? "document: " : "") + (found?.caption || "");

export function begin(about, whenOpened) {
  run = about;
  open = whenOpened;
}

// Another listing begins.
export function turn() {
  before = elements;
  elements = new Map();
}

// The tile of an image of the listing; `score` names the value on it.
export function tile(image, score) {
  const element = before.get(image.row) || fresh(image);
  if (image.row !== null) elements.set(image.row, element);
  const value = score === "similarity" ? image.similarity : image.value;
  const chip = element.querySelector(".chip");
  chip.hidden = value === null || value === undefined;
  if (!chip.hidden) chip.textContent = score.includes("similarity") ? value.toFixed(3) : exact(value);
  if (!chip.hidden) chip.title = score || "";
  const why = element.querySelector(".why");
  const badge = element.querySelector(".badge");
  badge.hidden = !image.standing;
  badge.className = `badge ${image.standing || ""}`;
  badge.textContent = STANDINGS[image.standing] || "";
  const now = image.standing === "kept";
  const change = element.querySelector(".change");
  change.hidden = image.was === null;
  change.textContent = image.was === null ? "" : now ? "comes in" : "goes out";
  change.className = `change ${now ? "in" : "out"}`;
  why.textContent = image.why || "";
  why.title = image.why || "";
  return element;
}

function fresh(image) {
  const hidden = image.row !== null && run.withoutImages;
  const source = hidden
    ? null
    : image.row === null
      ? image.thumbnail && `data:image/jpeg;base64,${image.thumbnail}`
      : imageAddress(image.row, 320);
  const figure = h("span", { className: "figure" });
  if (source) {
    const picture = h("img", { alt: "", loading: "lazy", decoding: "async", src: source });
    picture.addEventListener("error", () => picture.replaceWith(h("span", { className: "unseen" }, "cannot be shown")));
    figure.append(picture);
  } else figure.append(h("span", { className: "unseen" }, hidden ? middle(image.name || "", 60) : "no thumbnail"));
  const element = h(
    "button",
    { type: "button", className: "tile" },
    figure,
    h("span", { className: "chip", hidden: true }),
    h(
      "span",
      { className: "about" },
      h(
        "span",
        { className: "line" },
        h("span", { className: "badge" }),
        h("span", { className: "change", hidden: true }),
      ),
      h("span", { className: "why", dir: "auto" }),
      h("span", { className: "caption", dir: "auto" }, image.caption || ""),
    ),
  );
  element.setAttribute("aria-label", `${image.name || "image"}, ${STANDINGS[image.standing] || "of the index"}`);
  element.title = image.name || "";
  if (image.row !== null) {
    element.dataset.row = image.row;
    if (!hidden) seen.observe(element);
    element.addEventListener("click", () => open(image.row));
  } else element.disabled = true;
  return element;
}

async function fetchCaptions() {
  while (wanted.size) {
    const rows = [...wanted].slice(0, CAPTIONS);
    rows.forEach((row) => wanted.delete(row));
    try {
      const page = await ask(`captions?rows=${rows.join(",")}`);
      for (const found of page.captions) {
        captions.set(found.row, found);
        const element = elements.get(found.row);
        if (element) fill(element, found);
      }
    } catch {
      return; // the next images that come into view ask again
    }
  }
}

function fill(element, found) {
  element.querySelector(".caption").textContent = said(found) || element.title.split("/").pop();
  if (!found.error) return;
  element.querySelector(".figure").replaceChildren(h("span", { className: "unseen" }, found.error));
  const why = element.querySelector(".why");
  why.hidden = why.textContent === found.error; // once is enough
}
