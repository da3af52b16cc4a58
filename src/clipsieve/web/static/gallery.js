// The gallery: tabs, orders, pages that load as one scrolls, groups of near duplicates, and what a search found.

import { ask } from "./ask.js";
import { $, count, h } from "./dom.js";
import { state, write } from "./state.js";
import * as tiles from "./tiles.js";

const PAGE = 60;
const GROUPS = 12;
const AHEAD = 900; // pixels below the window that are filled before one comes there
const TABS = [
  ["all", "All"],
  ["kept", "Kept"],
  ["dropped", "Dropped"],
  ["duplicate", "Near duplicates"],
  ["failed", "Failed"],
  ["unknown", "Unknown"],
  ["changed", "Changed"],
  ["groups", "Duplicate groups"],
];

let run = null;
let told = null;
let listed = []; // the images on the page, in order
let total = 0;
let loading = false;
let asked = 0; // counts listings, so that a page of an earlier one is not added to a later

export const listing = () => listed;

export function begin(about, whenOpened) {
  run = about;
  tiles.begin(about, whenOpened);
  for (const [name, title] of TABS) {
    if (name === "groups" && run.groups === null) continue;
    if (name === "duplicate" && run.dedup === null) continue;
    const tab = h(
      "button",
      { type: "button", role: "tab", id: `tab-${name}` },
      h("span", { className: tiles.STANDINGS[name] ? `badge ${name}` : "" }, title),
      h("b", {}),
    );
    tab.addEventListener("click", () => {
      Object.assign(state, { show: name, by: null, q: "", like: null });
      $("query").value = "";
      write("step");
      sync();
      reload();
    });
    $("tabs").append(tab);
  }
  $("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const tabs = [...$("tabs").children];
    tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length].focus();
  });
  $("by").addEventListener("change", () => {
    const by = $("by").value;
    state.by = by === "" ? null : by === "beside" ? by : Number(by);
    write("step");
    reload();
  });
  $("sort").addEventListener("change", () => {
    state.sort = $("sort").value;
    write("step");
    reload();
  });
  new IntersectionObserver((entries) => entries.some((e) => e.isIntersecting) && more(), {
    rootMargin: `${AHEAD}px`,
  }).observe($("more"));
}

// Tabs, reasons and orders, from the counts of a decision.
export function counted(decision) {
  told = decision;
  const of = told.counts;
  const numbers = { all: told.images, ...of, changed: of.gained + of.lost, groups: run.groups };
  for (const tab of $("tabs").children) {
    const number = numbers[tab.id.slice(4)] ?? 0;
    tab.lastChild.textContent = count(number);
    tab.classList.toggle("nothing", !number);
  }
  options($("by"), [
    ["", "every reason"],
    ...told.rules.map((rule) => [rule.keep, `${rule.text} (${count(rule.out)})`]),
    ...(of.beside ? [["beside", `a failed image of its sample (${count(of.beside)})`]] : []),
  ]);
  const near = told.rules
    .filter((rule) => rule.bounds.length)
    .map((rule) => [`near ${rule.keep}`, `near ${rule.text}`]);
  const scores = run.scores
    .filter((score) => score.edges)
    .flatMap(({ name }) => [
      [`up ${name}`, `${name}, lowest first`],
      [`down ${name}`, `${name}, highest first`],
    ]);
  options($("sort"), [["", "as in the input"], ["mixed", "mixed"], ...near, ...scores]);
  sync();
}

function options(select, pairs) {
  if (document.activeElement === select && select.options.length === pairs.length) {
    pairs.forEach(([, title], at) => (select.options[at].textContent = title));
    return;
  }
  select.replaceChildren(...pairs.map(([value, title]) => h("option", { value }, title)));
}

// The state as the controls show it.
export function sync() {
  for (const tab of $("tabs").children) {
    const on = !searching() && tab.id === `tab-${state.show}`;
    tab.setAttribute("aria-selected", on);
    tab.tabIndex = on || searching() ? 0 : -1;
  }
  for (const [select, value] of [
    [$("by"), state.by ?? ""],
    [$("sort"), state.sort],
  ]) {
    select.value = value;
    if (select.selectedIndex < 0) select.value = "";
  }
  $("by").parentElement.hidden = state.show !== "dropped";
  document.querySelector(".pick").hidden = searching() || state.show === "groups";
}

function question() {
  const number = (keep) => told.rules.findIndex((rule) => rule.keep === keep);
  const asks = { keep: state.keep, show: state.show, limit: PAGE };
  if (state.show === "dropped" && state.by === "beside") asks.beside = true;
  else if (state.show === "dropped" && number(state.by) >= 0) asks.by = number(state.by);
  const [how, what] = state.sort.split(" ");
  if (how === "mixed") asks.order = "mixed";
  else if (how === "near" && number(Number(what)) >= 0)
    Object.assign(asks, { order: "near", near: number(Number(what)) });
  else if ((how === "up" || how === "down") && what) Object.assign(asks, { order: how, sort: what });
  return asks;
}

const searching = () => Boolean(state.q) || state.like !== null;

// The listing from its beginning; what is on the page stays until the answer is there.
export function reload() {
  asked += 1;
  if (told) load(0);
}

function more() {
  const have = state.show === "groups" ? $("tiles").querySelectorAll(".group").length : listed.length;
  if (!loading && !searching() && have && have < total) load(have);
}

async function load(offset) {
  const mine = asked;
  loading = true;
  try {
    if (searching()) await search(mine);
    else if (state.show === "groups") await groups(mine, offset);
    else {
      const page = await ask("gallery", { ...question(), offset });
      if (mine === asked && !offset) show(page.images, page.total, page.score);
      else if (mine === asked) append(page.images, page.score);
    }
  } catch (failure) {
    if (mine !== asked) return;
    loading = false;
    if (!offset) show([], 0, null);
    say(failure.message, true);
    return;
  }
  if (mine !== asked) return;
  loading = false;
  // No scrolling tells that the end is still in sight: on a large screen, or when what is shown became shorter.
  if ($("more").getBoundingClientRect().top < innerHeight + AHEAD) more();
}

function append(images, score) {
  listed = listed.concat(images);
  $("tiles").append(...images.map((image) => tiles.tile(image, score)));
}

function say(text, isWrong = false) {
  $("status").textContent = text;
  $("status").className = isWrong ? "wrong" : "";
}

const NOTHING = {
  kept: "These rules keep nothing.",
  dropped: "Nothing is dropped here.",
  failed: "No image failed.",
  unknown: "Every image can be judged.",
  changed: "Nothing changes against the run: move a threshold.",
  duplicate: "Of what these rules keep, the run's search removed nothing.",
  all: "The run holds no images.",
};
const SAYING = {
  duplicate: "Near duplicates as the run found them; apply searches anew.",
  unknown: "These need a score that the run's early exit left out; apply computes it when asked to fill.",
};

function show(images, all, score) {
  tiles.turn();
  listed = images;
  total = all;
  const drawn = images.map((image) => tiles.tile(image, score));
  $("tiles").className = "tiles";
  $("tiles").replaceChildren(...drawn);
  say(all ? SAYING[state.show] || "" : NOTHING[state.show] || "");
}

async function groups(mine, offset) {
  const page = await ask("groups", { keep: state.keep, offset, limit: GROUPS });
  if (mine !== asked) return;
  if (!offset) {
    tiles.turn();
    listed = [];
    $("tiles").replaceChildren();
  }
  total = page.total;
  $("tiles").className = "groups";
  for (const { size, images } of page.groups) {
    listed = listed.concat(images);
    const some = size > images.length ? `, the first ${images.length} of them` : "";
    const title = h("h3", {}, `${count(size)} images${some}`);
    $("tiles").append(
      h(
        "section",
        { className: "group" },
        title,
        h("div", { className: "strip" }, ...images.map((image) => tiles.tile(image, page.score))),
      ),
    );
  }
  say(
    total
      ? `${run.dedup} found these as near duplicates; the first of each group stayed.`
      : "The run found no near duplicates.",
  );
}

async function search(mine) {
  const like = state.like;
  const what = state.q ? `“${state.q}”` : "the chosen image";
  const model =
    state.q && !run.loaded ? `Loading the model ${run.model || "of the index"}, then searching` : "Searching";
  say(`${model} for ${what} …`);
  const asks = {
    keep: state.keep,
    within: state.within,
    limit: PAGE,
    ...(state.q ? { text: state.q } : { row: like }),
  };
  const found = await ask("search", asks);
  if (mine !== asked) return;
  if (state.q) run.loaded = true;
  show(found.images, found.images.length, "similarity");
  const where = state.within === "index" ? "the index" : "the run";
  say(`${count(found.images.length)} nearest to ${what} of ${count(found.among)} images with vectors in ${where}`);
}
