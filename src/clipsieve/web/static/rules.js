// The panel of rules and scores: a histogram for each, thresholds that can be dragged, typed and stepped.

import { $, count, h, share } from "./dom.js";
import { axis, histogram, scaleOf, slider } from "./plots.js";
import { state } from "./state.js";

const MIRRORED = { ">=": "<=", ">": "<", "<=": ">=", "<": ">" };
const AT_MOST = new Set(["qr_code", "image_text_ratio", "max_similarity", "nearest_similarity", "aspect_ratio"]);

let scores = new Map();
let words = new Map();
let changed = () => {};
let cards = [];

export function begin(run, whenChanged) {
  changed = whenChanged;
  scores = new Map(run.scores.map((score) => [score.name, score]));
  words = new Map(run.words.map((score) => [score.name, score]));
  $("others-box").open = !matchMedia("(max-width: 820px)").matches;
  $("add").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = $("rule").value.trim();
    if (!text) return;
    state.keep = [...state.keep, { rule: text }];
    $("rule").value = "";
    changed("step");
  });
}

export const names = () => [...scores.keys()];

// The rule in words, from its bounds; those of a range are the low one and the high one.
function textOf(rule) {
  const [one, other] = rule.bounds;
  if (!other) return `${rule.term} ${one[0]} ${one[1]}`;
  return `${one[1]} ${MIRRORED[one[0]]} ${rule.term} ${other[0]} ${other[1]}`;
}

// Draws all cards anew; called when rules come or go, not while one moves.
export function draw(told) {
  const open = document.activeElement && document.activeElement.dataset.of;
  cards = [];
  const rows = state.keep.map((one, number) =>
    ruleCard(
      told.rules.find((rule) => rule.keep === number),
      one,
      number,
    ),
  );
  $("rules").replaceChildren(
    ...(rows.length ? rows : [h("p", { className: "soft" }, "No rules yet: every image that can be read is kept.")]),
  );
  const ruled = new Set(told.rules.map((rule) => rule.name));
  const unruled = (score) => !ruled.has(score.name);
  const others = [
    ...[...words.values()].filter(unruled).map(wordCard),
    ...[...scores.values()].filter(unruled).map(otherCard),
  ];
  $("others").replaceChildren(...others);
  $("others-box").hidden = !others.length;
  $("others-box").firstElementChild.textContent = rows.length ? "Other scores" : "Scores";
  update(told);
  if (open) (document.querySelector(`[data-of="${CSS.escape(open)}"]`) || $("add").lastElementChild).focus();
}

// New numbers in the cards that are there.
export function update(told) {
  for (const card of cards) {
    const rule = told.rules.find((one) => one.keep === card.number);
    if (rule && card.out) {
      card.out.textContent = rule.out ? `−${count(rule.out)}` : "−0";
      card.out.title = `drops ${count(rule.out)} images, ${share(rule.out, told.images)} of all`;
      card.part.textContent = share(rule.out, told.images);
    }
    if (card.heights && told.histograms[card.name]) card.heights(told.histograms[card.name]);
  }
}

export function wrong(text, number) {
  const at = cards.find((card) => card.number === number && number !== null);
  for (const card of cards) card.error?.replaceChildren();
  $("wrong").hidden = !text || Boolean(at?.error);
  $("wrong").textContent = text || "";
  if (text && at?.error) at.error.textContent = text;
}

function ruleCard(rule, one, number) {
  const card = { number, name: rule?.name };
  cards.push(card);
  card.out = h("b", { className: "out" });
  card.part = h("span", { className: "soft" });
  card.error = h("p", { className: "wrong", role: "alert" });
  const remove = h("button", { type: "button", className: "plain", "aria-label": `Remove ${one.rule}` }, "×");
  remove.dataset.of = `remove ${number}`; // after it that of the next rule, which takes its number
  remove.addEventListener("click", () => without(number));
  const score = rule && scores.get(rule.name);
  const moves = rule && rule.bounds.length && score?.edges;
  const head = h(
    "div",
    { className: "head" },
    h("h3", { dir: "auto" }, rule ? rule.term : one.rule),
    card.out,
    card.part,
    remove,
  );
  const parts = [head];
  if (moves) parts.push(...thresholds(card, rule, score, number));
  else {
    if (score?.edges) parts.push(histogram(card, score), axis(score));
    if (rule?.members.length && words.has(rule.name)) {
      const put = (members) => (members.length ? rewrite(number, among(rule.name, members)) : without(number));
      parts.push(labels(words.get(rule.name), rule.members, put));
    }
    parts.push(asText(one, number));
  }
  const said = [
    one.drop ? `drops the ${one.drop}` : null,
    one.missing !== undefined ? `a missing value counts as ${one.missing}` : null,
    score?.missing ? `${count(score.missing)} cannot be scored` : null,
    score?.skipped ? `${count(score.skipped)} not computed` : null,
  ].filter(Boolean);
  if (said.length) parts.push(h("p", { className: "soft note" }, said.join(" · ")));
  parts.push(card.error);
  return h("article", { className: "card", "aria-label": one.rule }, ...parts);
}

// A rule that is no threshold, or any rule as its own words.
function asText(one, number) {
  const field = h("input", {
    className: "words",
    value: one.rule,
    spellcheck: false,
    maxLength: 1000,
    "aria-label": "The rule",
    "data-of": `text ${number}`,
  });
  field.addEventListener("change", () => rewrite(number, field.value.trim()));
  return field;
}

function wordCard(score) {
  const add = (members) => {
    state.keep = [...state.keep, { rule: among(score.name, members) }];
    changed("step");
  };
  return h(
    "article",
    { className: "card other", "aria-label": score.name },
    h("div", { className: "head" }, h("h3", {}, score.name), h("span", { className: "soft" }, "keep only")),
    labels(score, [], add),
  );
}

const quoted = (word) => (word.includes('"') ? `'${word}'` : `"${word}"`);
const among = (name, members) => `${name} in (${members.map(quoted).join(", ")})`;

// The most common labels, each to be kept or not.
function labels(score, members, put) {
  const known = new Map([...members.map((word) => [word, null]), ...score.words]);
  return h(
    "p",
    { className: "labels" },
    ...[...known].map(([word, n]) => {
      const on = members.includes(word);
      const label = h(
        "button",
        { type: "button", className: "small", dir: "auto", "aria-pressed": on, "data-of": `${score.name} ${word}` },
        n === null ? word : `${word} ${count(n)}`,
      );
      label.addEventListener("click", () => {
        put(on ? members.filter((other) => other !== word) : [...members, word]);
      });
      return label;
    }),
  );
}

function without(number) {
  state.keep = state.keep.filter((_, other) => other !== number);
  state.by = null;
  if (state.sort.startsWith("near")) state.sort = "";
  changed("step");
}

function rewrite(number, text) {
  if (!text || text === state.keep[number].rule) return;
  state.keep = state.keep.map((one, other) => (other === number ? { ...one, rule: text } : one));
  changed("step");
}

function otherCard(score) {
  const card = { number: null, name: score.name };
  cards.push(card);
  const head = h("div", { className: "head" }, h("h3", {}, score.name));
  const parts = [head];
  if (score.edges) {
    parts.push(histogram(card, score), axis(score));
    if (score.rule) {
      const scale = scaleOf(score);
      const term = score.pair ? `any(${score.name})` : score.name;
      const add = (sign, percentile) => {
        const button = h("button", { type: "button", className: "small" }, sign === ">=" ? "at least" : "at most");
        button.setAttribute("aria-label", `Keep ${score.name} ${button.textContent}`);
        button.addEventListener("click", () => {
          const value = scale.value(scale.at(score.percentiles[percentile]));
          state.keep = [...state.keep, { rule: `${term} ${sign} ${value}` }];
          changed("step");
        });
        return button;
      };
      const both = AT_MOST.has(score.name) ? [add("<=", 3), add(">=", 1)] : [add(">=", 1), add("<=", 3)];
      head.append(h("span", { className: "adds" }, ...both));
    }
  } else parts.push(h("p", { className: "soft note" }, "No image has a value."));
  return h("article", { className: "card other", "aria-label": score.name }, ...parts);
}

function thresholds(card, rule, score, number) {
  const scale = scaleOf(score);
  const box = histogram(card, score);
  const outside = rule.bounds.map(() => box.appendChild(h("div", { className: "outside" })));
  const handles = [];
  const fields = [];
  const place = () => {
    rule.bounds.forEach(([sign, value], which) => {
      const at = scale.at(value);
      handles[which].style.left = `${100 * at}%`;
      const low = sign[0] === ">";
      outside[which].style.left = low ? "0" : `${100 * at}%`;
      outside[which].style.right = low ? `${100 - 100 * at}%` : "0";
      handles[which].setAttribute("aria-valuenow", value);
      handles[which].setAttribute("aria-valuetext", `${rule.term} ${sign} ${value}`);
      if (document.activeElement !== fields[which]) fields[which].value = value;
    });
  };
  const put = (which, value) => {
    const other = rule.bounds[1 - which]?.[1];
    const low = rule.bounds[which][0][0] === ">";
    if (other !== undefined && (low ? value > other : value < other)) value = other;
    if (!Number.isFinite(value) || value === rule.bounds[which][1]) return false;
    rule.bounds[which][1] = value;
    state.keep = state.keep.map((one, at) => (at === number ? { ...one, rule: textOf(rule) } : one));
    place();
    changed("move");
    return true;
  };
  rule.bounds.forEach(([sign], which) => {
    const field = h("input", {
      type: "number",
      step: "any",
      "aria-label": `${rule.term} ${sign}`,
      "data-of": `number ${number} ${which}`,
    });
    field.addEventListener("change", () => {
      if (field.value !== "" && put(which, Number(field.value))) changed("step");
      else field.value = rule.bounds[which][1];
    });
    fields.push(field);
    const handle = slider(box, score, scale, `${rule.term} ${sign}`, {
      now: () => rule.bounds[which][1],
      put: (value) => put(which, value),
      rest: () => changed("step"),
    });
    handle.dataset.of = `handle ${number} ${which}`;
    handles.push(handle);
    box.append(handle);
  });
  place();
  const signs = { ">=": "≥", ">": ">", "<=": "≤", "<": "<" };
  const words = h(
    "button",
    { type: "button", className: "plain", title: "Edit the rule as text", "aria-label": `Edit ${rule.text} as text` },
    "✎",
  );
  const line = h(
    "p",
    { className: "bounds" },
    ...rule.bounds.flatMap(([sign], which) => [h("span", {}, signs[sign]), fields[which]]),
    words,
  );
  words.addEventListener("click", () => {
    const field = asText(state.keep[number], number);
    line.replaceChildren(field);
    field.focus();
  });
  return [line, box, axis(score)];
}
