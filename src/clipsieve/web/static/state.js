// What a tab is looking at. It lives in the tab's address and nowhere else, so that tabs do not disturb each other,
// an address can be passed on, and the browser's way back undoes a change.

export const state = { keep: [], show: "all", by: null, sort: "", q: "", like: null, within: "" };

let run = null;
let own = "[]";

export function begin(about) {
  run = about;
  own = JSON.stringify(run.keep);
  read();
}

export const isOwn = () => JSON.stringify(state.keep) === own;

export function toOwn() {
  state.keep = JSON.parse(own);
}

const SHOWS = ["all", "kept", "dropped", "duplicate", "failed", "unknown", "changed", "groups"];
const whole = (text) => (/^\d{1,15}$/.test(text ?? "") ? Number(text) : null);

// From the address; of what makes no sense in it, as when it was cut short or is of another run, nothing is taken.
export function read() {
  const told = new URLSearchParams(location.hash.slice(1));
  toOwn();
  try {
    const keep = JSON.parse(told.get("keep")).map((one) => (typeof one === "string" ? { rule: one } : one));
    if (keep.every((one) => typeof one.rule === "string")) state.keep = keep.map(sane);
  } catch {
    // The run's own rules are a good start.
  }
  const show = told.get("show");
  state.show = SHOWS.includes(show) && (show !== "groups" || run.groups !== null) ? show : "all";
  state.by = told.get("by") === "beside" ? "beside" : whole(told.get("by"));
  const [how, ...what] = (told.get("sort") || "").split(" ");
  const known = how === "near" ? whole(what[0]) !== null : run.scores.some(({ name }) => name === what.join(" "));
  state.sort = how === "mixed" || known ? told.get("sort") : "";
  state.q = told.get("q") || "";
  state.like = whole(told.get("like"));
  state.within = run.search.includes(told.get("in")) ? told.get("in") : run.search[0] || "";
}

function sane({ rule, drop, missing }) {
  return {
    rule,
    ...(drop === "image" || drop === "sample" ? { drop } : {}),
    ...(Number.isFinite(missing) ? { missing } : {}),
  };
}

let moving = false;

// Puts the state into the address. A "step" can be gone back from; the many a "move" is made of, as in a drag, are one
// step together; with "same" it is only said in other words.
export function write(kind) {
  const told = new URLSearchParams();
  if (!isOwn()) told.set("keep", JSON.stringify(state.keep));
  if (state.show !== "all") told.set("show", state.show);
  if (state.by !== null) told.set("by", state.by);
  if (state.sort) told.set("sort", state.sort);
  if (state.q) told.set("q", state.q);
  if (state.like !== null) told.set("like", state.like);
  if ((state.q || state.like !== null) && state.within) told.set("in", state.within);
  const hash = `#${told}`;
  const fresh = kind === "step" || (kind === "move" && !moving);
  if (kind !== "same") moving = kind === "move";
  if (hash === (location.hash || "#")) return;
  if (fresh) history.pushState(null, "", hash);
  else history.replaceState(null, "", hash);
}
