// The image in large, the recipe, and apply.

import { ask } from "./ask.js";
import { $, copy, count, download, h, middle, share } from "./dom.js";
import * as gallery from "./gallery.js";
import { state } from "./state.js";
import * as tiles from "./tiles.js";

let run = null;
let told = null;
let row = null;
let watching = false;
let fillable = false;

export function counted(decision) {
  told = decision;
  if ($("applying").open) describe();
}

export function begin(about, whenSearched) {
  run = about;
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }
  $("before").addEventListener("click", () => step(-1));
  $("after").addEventListener("click", () => step(1));
  $("picture").addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  $("large").addEventListener("error", () => unseen(tiles.captionOf(row)?.error || "This image cannot be shown."));
  $("similar").hidden = !run.search.length;
  $("similar").addEventListener("click", () => {
    Object.assign(state, { q: "", like: row });
    $("picture").close();
    whenSearched();
  });
  $("recipe").addEventListener("click", showRecipe);
  $("copy").addEventListener("click", () => copy($("yaml"), $("copy")));
  $("copy-command").addEventListener("click", () => copy($("command"), $("copy-command")));
  $("apply").addEventListener("click", showApply);
  $("write").addEventListener("submit", (event) => {
    event.preventDefault();
    begun();
  });
  follow();
}

function unseen(text) {
  $("large").hidden = true;
  $("unseen").hidden = false;
  $("unseen").textContent = text;
}

function step(by) {
  const rows = gallery
    .listing()
    .map((image) => image.row)
    .filter((one) => one !== null);
  const at = rows.indexOf(row) + by;
  if (at >= 0 && at < rows.length) openImage(rows[at]);
}

export async function openImage(number) {
  row = number;
  if (!$("picture").open) $("picture").showModal();
  $("unseen").hidden = true;
  $("large").hidden = false;
  if (run.withoutImages) unseen(run.withoutImages);
  else $("large").src = tiles.imageAddress(row, 1600);
  $("full").hidden = Boolean(run.withoutImages);
  $("full").href = tiles.imageAddress(row, 16384);
  $("caption").textContent = tiles.said(tiles.captionOf(row));
  let image;
  try {
    image = await ask("image", { keep: state.keep, row: number });
    const known = tiles.captionOf(number);
    const found = known || (await ask(`captions?rows=${number}&side=1600`)).captions[0];
    if (row === number) $("caption").textContent = tiles.said(found);
    if (row === number && found.error && !run.withoutImages) unseen(found.error);
  } catch (failure) {
    if (row === number) $("why").textContent = failure.message;
    return;
  }
  if (row !== number) return;
  $("standing").className = `badge ${image.standing}`;
  $("standing").textContent = tiles.STANDINGS[image.standing];
  const then = image.then.reason || image.then.error;
  const before = image.was === null ? "" : `In the run: ${image.then.verdict}${then ? `, ${then}` : ""}.`;
  $("why").textContent = [image.why, before].filter(Boolean).join(" · ");
  const places = [image.reference || image.name, image.sample && image.reference && `sample ${image.sample}`];
  $("place").title = places.filter(Boolean).join(" · ");
  $("place").textContent = places
    .filter(Boolean)
    .map((place) => middle(place, 120))
    .join(" · ");
  $("scores").replaceChildren(
    ...image.scores.flatMap(([name, value]) => [h("dt", {}, name), h("dd", { dir: "auto" }, value)]),
  );
}

async function showRecipe() {
  $("chosen").showModal();
  try {
    const found = await ask("recipe", { keep: state.keep });
    $("yaml").value = found.recipe;
    $("command").value = found.command || "";
    $("line").hidden = !found.command;
    download($("download"), found.recipe);
  } catch (failure) {
    $("yaml").value = failure.message;
  }
}

async function showApply() {
  $("applying").showModal();
  $("refused").hidden = true;
  describe();
  follow(true);
}

// Whether the counts are those of the rules of this tab, and not of those before.
const settled = () => told?.keep === state.keep;

function describe() {
  $("go").disabled = watching || !settled();
  if (!settled()) {
    $("what").textContent = "Counting …";
    return;
  }
  const of = told.counts;
  const passing = of.kept + of.duplicate;
  const dedup = run.dedup ? ` Near duplicates are then searched anew (${run.dedup}).` : "";
  const writes = run.write
    ? `writes them as ${run.write} into a new run folder`
    : "writes a new ledger, as this run wrote no output";
  const pass = `${count(passing)} images (${share(passing, told.images)}) pass these rules.`;
  $("what").textContent = `${pass} Apply ${writes}; this run stays as it is, and its scores are taken over.${dedup}`;
  $("fill-line").hidden = !of.unknown && !of.gained && !fillable;
  $("fill-text").textContent = of.unknown
    ? `Compute the scores that ${count(of.unknown)} images lack, and no others`
    : `Compute what ${of.gained ? `the ${count(of.gained)} images that come in` : "some images"} lack, and nothing else`;
}

// Watches an apply that is under way, whichever tab began it; else a name that is free can be suggested.
async function follow(suggesting = false) {
  try {
    const { suggested, job } = await ask("apply");
    if (job?.state === "running") watch();
    else if (suggesting) $("folder").value = suggested;
  } catch (failure) {
    refuse(failure.message);
  }
}

function refuse(text) {
  $("refused").hidden = false;
  $("refused").textContent = text;
}

async function begun() {
  $("refused").hidden = true;
  $("go").disabled = true;
  try {
    await ask("apply", {
      keep: told.keep,
      name: $("folder").value.trim(),
      fill: $("fill").checked && !$("fill-line").hidden,
    });
    watch();
  } catch (failure) {
    refuse(failure.message);
    describe();
    follow();
  }
}

async function watch() {
  if (watching) return;
  watching = true;
  $("job").hidden = false;
  $("go").disabled = true;
  $("apply").textContent = "Applying …";
  try {
    let heard = null;
    do {
      await new Promise((done) => setTimeout(done, 400));
      heard = await ask("apply");
      progress(heard.job);
    } while (heard.job.state === "running");
    if (heard.job.state === "done") {
      $("folder").value = heard.suggested;
      $("refused").hidden = true;
    }
  } catch (failure) {
    refuse(failure.message);
  }
  watching = false;
  describe();
  $("apply").textContent = "Apply";
}

function progress(job) {
  const bar = $("progress");
  if (job.state === "running" && job.compared) bar.value = job.compared[0] / Math.max(job.compared[1], 1);
  else if (job.state === "running" && job.shards) bar.value = job.done / job.shards;
  else if (job.state === "running") bar.removeAttribute("value");
  else bar.value = 1;
  bar.hidden = job.state === "failed";
  const done = job.shards
    ? `${count(job.done)} of ${count(job.shards)} shards, ${count(job.images)} images`
    : "Reading the ledger";
  const kept = `${count(job.result.kept ?? 0)} images kept`;
  $("how").textContent = {
    running: `${job.compared ? "Comparing near duplicates" : done}, ${job.seconds} s`,
    done: `Done in ${job.seconds} s: ${kept}. Look at it with: clipsieve view ${job.result.run}`,
    failed: "",
  }[job.state];
  if (job.state === "failed") refuse(job.lines.pop() || "apply failed");
  fillable = job.fillable; // the server knows better what is lacking
  $("lines").replaceChildren(
    ...[...job.lines, job.result.output && `output ${job.result.output}`]
      .filter(Boolean)
      .map((line) => h("li", { dir: "auto" }, line)),
  );
}
