// The page: asks for the run once, then lets the rules of this tab decide, and hands the answer to its parts.

import { ask, latest } from "./ask.js";
import * as dialogs from "./dialogs.js";
import { $, count, h, later, share } from "./dom.js";
import * as gallery from "./gallery.js";
import * as rules from "./rules.js";
import * as tab from "./state.js";

const { state } = tab;
let run = null;
let redraw = true; // whether the cards are drawn anew with the next answer
let first = true;
let good = []; // the last rules that were right

const refresh = later(() => gallery.reload(), 120);

const decide = latest("decide", (told, question) => {
  if (told.wrong) {
    // What was wrong stays in the panel, to be mended; the numbers are those of the last rules that were right.
    if (first && !tab.isOwn()) {
      tab.toOwn();
      decide({ keep: state.keep, histograms: rules.names() });
      return;
    }
    rules.wrong(told.wrong, told.number);
    if (told.number !== null && told.number >= 0 && redraw) rejected(question.keep, told.number);
    return;
  }
  rules.wrong("");
  state.keep = told.keep;
  good = told.keep;
  dialogs.counted(told);
  summary(told);
  gallery.counted(told);
  if (redraw || first) rules.draw(told);
  else rules.update(told);
  redraw = false;
  tab.write(false);
  if (first) gallery.reload();
  else refresh();
  first = false;
}, (failure) => rules.wrong(failure.message, null));

// A wrong rule does not stay among the rules: its text goes back to where it was typed.
function rejected(keep, number) {
  if (keep.length > good.length) $("rule").value = keep[number].rule;
  state.keep = good;
  tab.write(false);
}

// The rules have moved (`step` false), or have come to rest or changed otherwise.
function changed(step) {
  if (step) {
    redraw = true;
    tab.write(true);
  }
  $("reset").disabled = tab.isOwn();
  decide({ keep: state.keep, histograms: rules.names() });
}

function summary(told) {
  const of = told.counts;
  const all = told.images;
  $("kept").textContent = count(of.kept);
  $("share").textContent = `of ${count(all)} images kept, ${share(of.kept, all)}`;
  const parts = [of.gained && `+${count(of.gained)} in`, of.lost && `−${count(of.lost)} out`].filter(Boolean);
  $("against").textContent = parts.length ? `${parts.join(", ")} against the run` : "as in the run";
  $("against").className = parts.length ? "differs" : "";
  $("reset").disabled = tab.isOwn();
  const kinds = ["kept", "duplicate", "dropped", "failed", "unknown"];
  $("bar").replaceChildren(...kinds.filter((kind) => of[kind]).map((kind) => {
    const piece = h("span", { className: kind, title: `${gallery.STANDINGS[kind]}: ${count(of[kind])}` });
    piece.style.flexGrow = of[kind];
    return piece;
  }));
  $("bar").setAttribute("aria-label", kinds.map((kind) => `${gallery.STANDINGS[kind]} ${count(of[kind])}`).join(", "));
  const lacking = Object.entries(told.lacking).map(([name, number]) => `${count(number)} images lack ${name}, which the run's early exit left out: they count as unknown, and apply computes it when asked to fill`);
  const fresh = run.dedup && of.gained ? [`${count(of.gained)} that come in were not compared for near duplicates yet; apply searches anew`] : [];
  $("notes").replaceChildren(...[...lacking, ...fresh].map((text) => h("span", {}, `${text}.`)));
}

function searched() {
  tab.write();
  $("query").value = state.q;
  gallery.sync();
  gallery.reload();
  if ($("gallery").getBoundingClientRect().top < 0) $("gallery").scrollIntoView();
}

function searching() {
  if (!run.search.length) {
    $("query").disabled = true;
    $("query").placeholder = "No vectors to search in";
    $("search").title = `To search, ${run.withoutSearch}`;
    $("search").querySelector("button").disabled = true;
    return;
  }
  $("within").hidden = run.search.length < 2;
  const titles = { run: "in this run", index: "in the index" };
  $("within").replaceChildren(...run.search.map((value) => h("option", { value }, titles[value])));
  $("within").value = state.within;
  $("within").addEventListener("change", () => {
    state.within = $("within").value;
    if (state.q || state.like !== null) searched();
  });
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    Object.assign(state, { q: $("query").value.trim(), like: null });
    searched();
  });
}

async function begin() {
  try {
    run = await ask("run");
  } catch (failure) {
    $("about").textContent = failure.message;
    $("about").className = "wrong";
    return;
  }
  document.title = `${run.name} - Clipsieve`;
  $("name").textContent = run.name;
  $("about").textContent = [`${count(run.images)} images`, run.layout, run.model && `model ${run.model}`, run.withoutImages].filter(Boolean).join(" · ");
  tab.begin(run);
  rules.begin(run, changed);
  gallery.begin(run, dialogs.openImage);
  dialogs.begin(run, searched);
  searching();
  $("query").value = state.q;
  $("reset").addEventListener("click", () => {
    tab.toOwn();
    changed(true);
  });
  addEventListener("popstate", () => {
    tab.read();
    $("query").value = state.q;
    redraw = true;
    changed(false);
  });
  changed(false);
}

begin();
