// What a tab is looking at. It lives in the tab's address and nowhere else, so that tabs do not disturb each other,
// an address can be passed on, and the browser's way back undoes a change.

export const state = { keep: [], show: "all", by: null, sort: "", q: "", like: null, within: "" };

let own = "[]";

export function begin(run) {
  own = JSON.stringify(run.keep);
  state.within = run.search[0] || "";
  read();
}

export const isOwn = () => JSON.stringify(state.keep) === own;

export function toOwn() {
  state.keep = JSON.parse(own);
}

export function read() {
  const told = new URLSearchParams(location.hash.slice(1));
  toOwn();
  try {
    const keep = JSON.parse(told.get("keep") || "null");
    if (Array.isArray(keep)) state.keep = keep.map((one) => (typeof one === "string" ? { rule: one } : one));
  } catch {
    // An address that was cut short: the run's own rules are a good start.
  }
  state.show = told.get("show") || "all";
  const by = told.get("by");
  state.by = by === null || by === "beside" ? by : Number(by);
  state.sort = told.get("sort") || "";
  state.q = told.get("q") || "";
  state.like = told.has("like") ? Number(told.get("like")) : null;
  if (told.has("in")) state.within = told.get("in");
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
