// The page: asks for the run once, then lets the rules of this tab decide, and hands the answer to its parts.

import { ask, latest } from "./ask.js";
import * as dialogs from "./dialogs.js";
import { $, count, h, later, share } from "./dom.js";
import * as gallery from "./gallery.js";
import { dragging } from "./plots.js";
import * as rules from "./rules.js";
import * as tab from "./state.js";
import * as tiles from "./tiles.js";

const { state } = tab;
let run = null;
let redraw = true; // whether the cards are drawn anew with the next answer
let first = true;
let unread = ""; // what was wrong with the rules of the address
let good = []; // the last rules that were right

const refresh = later(() => gallery.reload(), 120);

const decide = latest("decide", heard, (failure) => {
  if (first && !tab.isOwn()) startOver(failure.message);
  else rules.wrong(failure.message, null);
});

// Counts, bars and cards follow every answer; the rules themselves, the address and the images only the newest.
function heard(told, question, newest) {
  if (told.wrong && !newest) return;
  if (told.wrong) {
    if (first && !tab.isOwn()) return startOver(told.wrong);
    // What was wrong stays in the panel, to be mended; the numbers are those of the last rules that were right.
    rules.wrong(told.wrong, told.number);
    if (redraw) rejected(question.keep);
    return;
  }
  good = told.keep;
  if (newest) state.keep = told.keep;
  dialogs.counted(told);
  summary(told);
  gallery.counted(told);
  const anew = newest && redraw && !dragging();
  if (anew) rules.draw(told);
  else if (newest || !redraw) rules.update(told);
  redraw = redraw && !anew;
  if (!newest) return;
  rules.wrong(unread, null);
  unread = "";
  tab.write("same");
  if (first) gallery.reload();
  else refresh();
  first = false;
}

// An address whose rules cannot be used: those of the run, and what was wrong.
function startOver(text) {
  unread = text;
  tab.toOwn();
  decide({ keep: state.keep, histograms: rules.names() });
}

// A wrong rule does not stay among the rules: its text goes back to where it was typed.
function rejected(keep) {
  if (keep.length > good.length) $("rule").value = keep[keep.length - 1].rule;
  state.keep = good;
  tab.write("same");
}

// Other rules than before: by a "move" of one of them, or by a "step" (also the end of a move) or the way back, after
// which the cards are drawn anew.
function changed(kind) {
  if (kind !== "move") redraw = true;
  if (kind !== "back") tab.write(kind);
  $("reset").disabled = tab.isOwn();
  decide({ keep: state.keep, histograms: rules.names() });
}

function summary(told) {
  const of = told.counts;
  const all = told.images;
  $("kept").textContent = count(of.kept);
  $("share").textContent = `of ${count(all)} images kept, ${share(of.kept, all)}`;
  const parts = [
    of.gained && `+${count(of.gained)} in`,
    of.lost && `−${count(of.lost)} out`,
    of.doubted && `${count(of.doubted)} unknown`,
  ].filter(Boolean);
  $("against").textContent = parts.length ? `${parts.join(", ")} against the run` : "as in the run";
  $("against").className = parts.length ? "differs" : "";
  $("reset").disabled = tab.isOwn();
  const kinds = ["kept", "duplicate", "dropped", "failed", "unknown"];
  $("bar").replaceChildren(
    ...kinds
      .filter((kind) => of[kind])
      .map((kind) => {
        const piece = h("span", { className: kind, title: `${tiles.STANDINGS[kind]}: ${count(of[kind])}` });
        piece.style.flexGrow = of[kind];
        return piece;
      }),
  );
  $("bar").setAttribute("aria-label", kinds.map((kind) => `${tiles.STANDINGS[kind]} ${count(of[kind])}`).join(", "));
  const names = Object.entries(told.lacking).map(([name, number]) => `${name} (${count(number)})`);
  const why = `since the run's early exit left out ${names.join(", ")}; apply computes just those when asked to fill`;
  const lacking = names.length ? [`${count(of.unknown)} images count as unknown, ${why}`] : [];
  const anew = "were not compared for near duplicates yet; apply searches anew";
  const fresh = run.dedup && of.gained ? [`${count(of.gained)} that come in ${anew}`] : [];
  const gone = run.withoutImages ? [run.withoutImages] : [];
  $("notes").replaceChildren(...[...gone, ...lacking, ...fresh].map((text) => h("span", {}, `${text}.`)));
}

function searched() {
  tab.write("step");
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
  $("about").textContent = [`${count(run.images)} images`, run.layout, run.model && `model ${run.model}`]
    .filter(Boolean)
    .join(" · ");
  tab.begin(run);
  rules.begin(run, changed);
  gallery.begin(run, dialogs.openImage);
  dialogs.begin(run, searched);
  searching();
  $("query").value = state.q;
  $("reset").addEventListener("click", () => {
    tab.toOwn();
    changed("step");
  });
  addEventListener("popstate", () => {
    tab.read();
    $("query").value = state.q;
    changed("back");
  });
  changed("back");
}

begin();
