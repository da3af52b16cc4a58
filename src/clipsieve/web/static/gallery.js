// The gallery: tabs, orders, pages that load as one scrolls, groups of near duplicates, and what a search found.

import { ask } from "./ask.js";
import { $, count, h } from "./dom.js";
import { state, write } from "./state.js";
import * as tiles from "./tiles.js";

const PAGE = 60;
const GROUPS = 12;
const TABS = [
  ["all", "All"],
  ["kept", "Kept"],
  ["dropped", "Dropped"],
  ["duplicate", "Near duplicates"],
  ["failed", "Failed"],
  ["unknown", "Unknown"],
  ["changed", "Changed"],
  ["groups", "Groups"],
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
    if (state.by === "beside" && state.show === "dropped") asks.beside = true;
    else if (state.by !== null && state.show !== "dropped") state.show = "dropped";
    write("step");
    sync();
    reload();
  });
  $("sort").addEventListener("change", () => {
    state.sort = $("sort").value;
    write("step");
    reload();
  });
  new IntersectionObserver((entries) => entries.some((e) => e.isIntersecting) && more(), {
    rootMargin: "900px",
  }).observe($("more"));
}

// Tabs, reasons and orders, from the counts of a decision.
export function counted(decision) {
  told = decision;
  const of = told.counts;
  const numbers = { all: told.images, ...of, changed: of.gained + of.lost, groups: run.groups };
  for (const tab of $("tabs").children) tab.lastChild.textContent = count(numbers[tab.id.slice(4)] ?? 0);
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
  const searching = state.q || state.like !== null;
  for (const tab of $("tabs").children) {
    const on = !searching && tab.id === `tab-${state.show}`;
    tab.setAttribute("aria-selected", on);
    tab.tabIndex = on || searching ? 0 : -1;
  }
  $("by").value = state.by === null ? "" : String(state.by);
  $("sort").value = state.sort;
  if ($("sort").selectedIndex < 0) $("sort").value = "";
  document.querySelector(".pick").hidden = Boolean(searching) || state.show === "groups";
}

function question() {
  const number = (keep) => told.rules.findIndex((rule) => rule.keep === keep);
  const asks = { keep: state.keep, show: state.show, limit: PAGE };
  if (state.by !== null && state.show === "dropped" && number(state.by) >= 0) asks.by = number(state.by);
  const [how, what] = state.sort.split(" ");
  if (how === "mixed") asks.order = "mixed";
  else if (how === "near" && number(Number(what)) >= 0)
    Object.assign(asks, { order: "near", near: number(Number(what)) });
  else if ((how === "up" || how === "down") && what) Object.assign(asks, { order: how, sort: what });
  return asks;
}

// The listing from its beginning; what is on the page stays until the answer is there.
export async function reload() {
  asked += 1;
  const mine = asked;
  loading = true;
  if (!told) return;
  try {
    if (state.q || state.like !== null) await search(mine);
    else if (state.show === "groups") await groups(mine, 0);
    else {
      const page = await ask("gallery", { ...question(), offset: 0 });
      if (mine === asked) show(page.images, page.total, page.score);
    }
  } catch (failure) {
    if (mine === asked) show([], 0, null);
    if (mine === asked) say(failure.message, true);
  }
  if (mine === asked) loading = false;
}

async function more() {
  if (loading || !told || state.q || state.like !== null) return;
  const grouped = state.show === "groups";
  const have = grouped ? $("tiles").querySelectorAll(".group").length : listed.length;
  if (!have || have >= total) return;
  loading = true;
  const mine = asked;
  try {
    if (grouped) await groups(mine, have);
    else {
      const page = await ask("gallery", { ...question(), offset: have });
      if (mine === asked) {
        listed = listed.concat(page.images);
        $("tiles").append(...page.images.map((image) => tiles.tile(image, page.score)));
      }
    }
  } catch (failure) {
    if (mine === asked) say(failure.message, true);
  }
  if (mine === asked) loading = false;
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
