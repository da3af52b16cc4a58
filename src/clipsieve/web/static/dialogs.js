// The image in large, the recipe, and apply.

import { ask } from "./ask.js";
import { $, copy, count, download, h, share } from "./dom.js";
import * as gallery from "./gallery.js";
import { state } from "./state.js";
import * as tiles from "./tiles.js";

let run = null;
let told = null;
let row = null;
let watching = false;

export const counted = (decision) => (told = decision);

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
  ask("apply").then(
    ({ job }) => job?.state === "running" && watch(),
    () => {},
  );
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
  $("caption").textContent = tiles.captionOf(row)?.caption || "";
  let image;
  try {
    image = await ask("image", { keep: state.keep, row: number });
    const known = tiles.captionOf(number);
    const found = known || (await ask(`captions?rows=${number}&side=1600`)).captions[0];
    if (row === number) $("caption").textContent = found.caption || "";
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
  $("place").textContent = [
    image.reference || image.name,
    image.sample && image.reference ? `sample ${image.sample}` : null,
  ]
    .filter(Boolean)
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
  const of = told.counts;
  const passing = of.kept + of.duplicate;
  const dedup = run.dedup ? ` Near duplicates are then searched anew (${run.dedup}).` : "";
  const writes = run.write
    ? `writes them as ${run.write} into a new run folder`
    : "writes a new ledger, as this run wrote no output";
  const pass = `${count(passing)} images (${share(passing, told.images)}) pass these rules.`;
  $("what").textContent = `${pass} Apply ${writes}; this run stays as it is, and its scores are taken over.${dedup}`;
  $("fill-line").hidden = !of.unknown && !of.gained;
  $("fill-text").textContent = of.unknown
    ? `Compute the scores that ${count(of.unknown)} images lack, and no others`
    : `Compute what the ${count(of.gained)} images that come in lack, such as vectors to compare, and nothing else`;
  $("refused").hidden = true;
  try {
    const { suggested, job } = await ask("apply");
    if (job?.state === "running") watch();
    else $("folder").value = suggested;
  } catch (failure) {
    refuse(failure.message);
  }
}

function refuse(text) {
  $("refused").hidden = false;
  $("refused").textContent = text;
  if (text.includes("--fill")) $("fill-line").hidden = false; // the server knows better what is lacking
  $("go").disabled = false;
}

async function begun() {
  $("refused").hidden = true;
  $("go").disabled = true;
  try {
    await ask("apply", {
      keep: state.keep,
      name: $("folder").value.trim(),
      fill: $("fill").checked && !$("fill-line").hidden,
    });
    watch();
  } catch (failure) {
    refuse(failure.message);
  }
}

async function watch() {
  if (watching) return;
  watching = true;
  $("job").hidden = false;
  $("go").disabled = true;
  $("apply").textContent = "Applying …";
  let job;
  try {
    do {
      await new Promise((done) => setTimeout(done, 400));
      ({ job } = await ask("apply"));
      progress(job);
    } while (job.state === "running");
  } catch (failure) {
    refuse(failure.message);
  }
  watching = false;
  $("go").disabled = false;
  $("apply").textContent = "Apply";
}

function progress(job) {
  const bar = $("progress");
  if (job.state === "running" && job.compared) bar.value = job.compared[0] / Math.max(job.compared[1], 1);
  else if (job.state === "running" && job.shards) bar.value = job.done / job.shards;
  else if (job.state === "running") bar.removeAttribute("value");
  else bar.value = 1;
  bar.hidden = job.state === "failed";
  const done = `${count(job.done)} of ${count(job.shards)} shards, ${count(job.images)} images`;
  const kept = `${count(job.result.kept ?? 0)} images kept`;
  $("how").textContent = {
    running: `${job.compared ? "Comparing near duplicates" : done}, ${job.seconds} s`,
    done: `Done in ${job.seconds} s: ${kept}. Look at it with: clipsieve view ${job.result.run}`,
    failed: "",
  }[job.state];
  if (job.state === "failed") refuse(job.lines.pop() || "apply failed");
  $("lines").replaceChildren(
    ...[...job.lines, job.result.output && `output ${job.result.output}`]
      .filter(Boolean)
      .map((line) => h("li", { dir: "auto" }, line)),
  );
}
