// Elements from values: data reaches the page as text or as a property, never as markup.

export const $ = (id) => document.getElementById(id);

export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function svg(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

const whole = new Intl.NumberFormat("en");
export const count = (number) => whole.format(number);

export function share(part, all) {
  if (!all) return "";
  const percent = (100 * part) / all;
  return percent > 0 && percent < 0.1
    ? "< 0.1%"
    : percent > 99.9 && percent < 100
      ? "> 99.9%"
      : `${percent.toFixed(1)}%`;
}

// A value in few characters, as the report and the terminal show it.
export function brief(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return `${Number((value / 1e9).toPrecision(3))}G`;
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  return String(Number(value.toPrecision(size >= 1000 ? 4 : 3)));
}

// With the digits that reasons have, which tell what lies near a threshold apart.
export const exact = (value) => (Math.abs(value) < 1e5 ? String(Number(value.toPrecision(5))) : brief(value));

// Runs `work` when nothing has called for a while.
export function later(work, wait) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), wait);
  };
}

// A path with its end, which tells it from others, and its beginning.
export const middle = (text, most) =>
  text.length <= most ? text : `${text.slice(0, Math.floor(most / 3))}…${text.slice(-Math.floor((most * 2) / 3))}`;

// Copies also where a page is not served from this machine and the browser gives no clipboard.
export async function copy(field, button) {
  let done = true;
  try {
    await navigator.clipboard.writeText(field.value);
  } catch {
    field.select();
    done = document.execCommand("copy");
  }
  button.dataset.title ??= button.textContent;
  button.textContent = done ? "Copied" : "Selected: copy it by Ctrl-C";
  setTimeout(() => (button.textContent = button.dataset.title), 1500);
}

export function download(link, text) {
  if (link.href.startsWith("blob:")) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([text], { type: "application/yaml" }));
}
