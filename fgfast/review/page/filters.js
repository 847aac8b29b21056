// Filters above the gallery, search, jump, and the histogram of doubt, which is one, too.
import { DOUBT } from "./card.js";
import { $, el } from "./elements.js";
import { load, store } from "./drafts.js";
import { events, loadQueue, queue, run } from "./state.js";

const HIGH = 44; // px of the histogram, with its axis, which is logarithmic: most doubts are small
const NAMES = ["q", "flag", "class", "split", "status", "decided", "cause", "order"];

function fill(id, first, options) {
  const select = $(id), was = select.value;
  const wanted = [...first, ...options];
  const now = JSON.stringify(wanted);
  if (select.dataset.now === now) return;
  select.dataset.now = now;
  select.replaceChildren(...wanted.map(([value, text]) => el("option", { value, textContent: text })));
  select.value = was;
  if (select.selectedIndex < 0) select.selectedIndex = 0;
}

function fillAll() {
  const same = (list) => list.map((value) => [value, value]);
  fill("flag", [["", "any"]], run.flags.map((f) => [f.name, `${f.name} (${f.count})`]));
  fill("class", [["", "all"]], same(run.classes.filter(Boolean)));
  fill("split", [["", "all"]], same(run.splits.filter(Boolean)));
  fill("status", [["", "all"]], Object.entries(run.statuses).map(([name, n]) => [name, `${name} (${n})`]));
  fill("decided", [["", "any"], ["no", "not yet"], ["yes", "decided"], ["later", "later"]], []);
  fill("cause", [["", "any"]], same(run.causes));
  fill("order", [["doubt", "doubt"], ["key", "name"], ["class", "class"]], []);
  $("class").parentElement.hidden = run.classes.filter(Boolean).length < 2;
  $("split").parentElement.hidden = run.splits.filter(Boolean).length < 2;
}

const chosen = () => Object.fromEntries(NAMES.map((name) => [name, $(name).value]));

export function refresh() {
  const filters = chosen();
  store("filters", filters);
  return loadQueue(filters);
}

export function startFilters(jump) {
  fillAll();
  $("doubts").title = DOUBT;
  const before = load("filters", {});
  for (const name of NAMES) {
    if (!before[name]) continue;
    $(name).value = before[name];
    if ($(name).selectedIndex === -1) $(name).selectedIndex = 0;
  }
  let soon = 0;
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("change", (event) => { if (event.target.id !== "jump" && event.target.id !== "q") refresh(); });
  $("q").addEventListener("input", () => { clearTimeout(soon); soon = setTimeout(refresh, 160); });
  $("jump").addEventListener("change", () => jump(Math.min(queue.ids.length, Math.max(1, Number($("jump").value))) - 1));
  $("histogram").addEventListener("click", (event) => {
    const bounds = $("histogram").getBoundingClientRect();
    const doubt = 1 + ((event.clientX - bounds.left) / bounds.width) * 254;
    if (queue.filters.order === "doubt") jump(firstBelow(doubt));
  });
  events.addEventListener("state", () => { fillAll(); draw(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
}

// Returns the first place in the queue whose doubt is at most this one; the queue falls.
function firstBelow(doubt) {
  let low = 0, high = queue.doubts.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (queue.doubts[middle] > doubt) low = middle + 1;
    else high = middle;
  }
  return Math.min(low, Math.max(0, queue.doubts.length - 1));
}

function draw() {
  const canvas = $("histogram"), counts = run.histogram ?? [];
  const ratio = devicePixelRatio || 1;
  canvas.width = 200 * ratio;
  canvas.height = HIGH * ratio;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const colours = getComputedStyle(document.documentElement), colour = (name) => colours.getPropertyValue(name);
  const ground = HIGH - 12;
  context.fillStyle = colour("--line");
  context.fillRect(0, ground, 200, 1);
  context.fillStyle = colour("--soft");
  context.font = "10px system-ui, sans-serif";
  context.textAlign = "center";
  for (const [x, text] of [[50, "0.001"], [100, "0.01"], [150, "0.1"]]) {
    context.fillRect(x - 0.5, ground, 1, 3);
    context.fillText(text, x, HIGH - 1);
  }
  context.fillStyle = colour("--mark");
  const most = Math.log1p(Math.max(1, ...counts));
  counts.forEach((n, k) => {
    const high = n ? Math.max(1.5, ((ground - 2) * Math.log1p(n)) / most) : 0;
    context.fillRect(k * 10 + 0.5, ground - high, 9, high);
  });
  canvas.setAttribute("aria-label", `Histogram of doubt from 0.0001 to 1, five bins for each power of ten: ${counts.join(", ")}`);
}
