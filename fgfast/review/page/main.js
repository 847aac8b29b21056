// The page of fgfast review: puts its parts together.
import { post } from "./api.js";
import { canUndo, decide, hooks, putOff, startDeciding, undo } from "./deciding.js";
import { conflict, help } from "./dialogs.js";
import { $, plural, say } from "./elements.js";
import { refresh, startFilters } from "./filters.js";
import { Gallery } from "./gallery.js";
import { actionOf, keyOf, loadKeys, shown } from "./keys.js";
import { entries, entry, events, fetchEntries, loadState, place, queue, run, stateSoon, watch } from "./state.js";
import { Viewer } from "./viewer.js";

const viewer = new Viewer((id) => {
  gallery.measure();
  gallery.jump(place(id));
  $("scroller").focus({ preventScroll: true });
});
const gallery = new Gallery((id) => viewer.open(id));
const large = () => !$("viewer").hidden;
let leftBefore = 0, back = null; // flagged ones left as last told; the entry that was undone last

function top() {
  $("title").textContent = run.title || "fgfast review";
  document.title = `${run.title || "fgfast"}: review`;
  $("left").textContent = $("left").title = `${left()} · ${run.decided.toLocaleString("en")} decided`;
  if (leftBefore > 0 && !run.left && run.decided) say(left());
  leftBefore = run.left;
  $("readonly").hidden = !run.readonly;
  $("finish").hidden = !run.stale && !run.finishing;
  $("finish").disabled = run.finishing;
  $("finish").textContent = run.finishing ? "Writing lists …" : "Write lists";
  $("finish").title = "Lists, boxes, COCO and report are older than your decisions; they are also written after a minute's rest, and at the end";
  undoButton();
}

// What is left to look at: the flagged ones, and, once all of them are decided, how to go on.
function left() {
  if (run.left) return `${run.left.toLocaleString("en")} flagged left${run.minutes > 0 ? `, about ${plural(Math.max(1, Math.round(run.minutes)), "minute")}` : ""}`;
  const { status, order } = queue.filters;
  if (!run.statuses.done && !run.statuses.flagged) return "Nothing is left to decide";
  const next = status && status !== "done" ? "Set Status to all for the next most doubtful." : order && order !== "doubt" ? "Order by doubt for the next most doubtful." : "The next most doubtful follow.";
  return `${run.decided ? "All flagged ones are decided." : "None is flagged."} ${next}`;
}

const undoButton = () => {
  $("undo").disabled = !canUndo() || run.readonly;
  $("undo").title = `Undo the last decision (${shown(keyOf("undo"))})`;
};

async function decideMany(verdict) {
  const ids = gallery.picked.size ? [...gallery.picked] : [queue.ids[gallery.here]].filter((id) => id !== undefined);
  if (!ids.length) return;
  if (run.readonly) { say("This server only shows: nothing can be decided here"); return; }
  if (verdict === "later") await putOff(ids, !ids.every((id) => entries.get(id)?.later));
  else {
    await fetchEntries(ids);
    const changes = ids.filter((id) => entries.has(id)).map((id) => ({ id, seen: entries.get(id).revision, verdict, how: verdict, cause: "", note: "" }));
    decide(changes);
  }
  say(`${{ accept: "Accepted", reject: "Rejected", later: "Later" }[verdict]}: ${plural(ids.length, "entry", "entries")}`);
  if (gallery.picked.size) gallery.pickNone();
  else gallery.jump(Math.min(queue.ids.length - 1, gallery.here + 1));
}

hooks.conflict = async (result, mine) => {
  const chosen = await conflict(result.item ?? (await entry(result.id)), result.conflict, mine);
  if (chosen === "mine") decide([{ ...mine, seen: result.conflict.now.number }]);
  else say("Theirs is kept");
};
// One stays where one is: what was undone is said, and shown where it is seen.
hooks.undone = (ids) => {
  const [id] = ids, item = entries.get(id);
  back = id;
  if (large() && viewer.id === id) return "";
  return `${ids.length === 1 && item ? ` on ${item.key}` : ""} (${shown(keyOf("undone"))} goes there)`;
};

// Goes to what was undone last, also where the filters leave it out.
function toUndone() {
  if (back === null) say("Nothing was undone");
  else if (!large() && place(back) >= 0) gallery.jump(place(back));
  else if (viewer.id !== back) viewer.open(back);
}

function inGallery(name, event) {
  const acts = {
    accept: () => decideMany("accept"), reject: () => decideMany("reject"), later: () => decideMany("later"),
    next: () => gallery.move("ArrowRight"), previous: () => gallery.move("ArrowLeft"), swap: () => gallery.swap(),
    save: () => viewer.open(queue.ids[gallery.here]), select: () => gallery.toggle(gallery.here), all: () => gallery.pickAll(),
    close: () => gallery.pickNone(), search: () => $("q").focus(),
  };
  if (acts[name]) acts[name]();
  else if (!gallery.move(event.key, event.shiftKey)) return false;
  return true;
}

addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || event.isComposing) return;
  const target = event.target instanceof Element ? event.target : document.body;
  if (target.matches("input:not([type=range]), textarea, select")) {
    if (event.key === "Escape") { target.blur(); (large() ? $("canvas") : $("scroller")).focus(); }
    return;
  }
  if (target.matches("button, summary, input") && [" ", "Enter"].includes(event.key)) return;
  if (target.matches("input") && event.key.startsWith("Arrow")) return;
  if (handled(event)) event.preventDefault();
});

function handled(event) {
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code);
  if (large() && digit && !event.ctrlKey && !event.altKey && !event.metaKey) {
    viewer.once(() => (event.shiftKey ? viewer.setCause(digit[1] - 1) : viewer.choose(digit[1] - 1)));
    return true;
  }
  const name = actionOf(event);
  if (name === "help") { help(); return true; }
  if (name === "undo") { undo(); return true; }
  if (name === "undone") { toUndone(); return true; }
  if (!large()) return inGallery(name, event);
  if (!viewer.loading && viewer.pointer.key(event)) return true;
  if (name) return viewer.act(name);
  const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -1, PageDown: 1 }[event.key];
  return by ? (viewer.act(by < 0 ? "previous" : "next"), true) : false;
}

async function start() {
  await loadState();
  loadKeys();
  top();
  events.addEventListener("state", top);
  events.addEventListener("queue", top);
  events.addEventListener("decisions", undoButton);
  startFilters((to) => gallery.jump(to));
  await refresh();
  startDeciding();
  watch();
  $("scroller").focus({ preventScroll: true });
  document.documentElement.dataset.ready = "yes";
}

$("help-button").addEventListener("click", help);
$("undo").addEventListener("click", undo);
$("finish").addEventListener("click", async () => {
  $("finish").disabled = true;
  $("finish").textContent = "Writing lists …";
  await post("/api/finish", {}).then(() => say("Lists, boxes and report are up to date"), (error) => say(error.message));
  stateSoon();
});
$("picked").addEventListener("click", (event) => {
  const act = event.target.dataset.do;
  if (act === "none") gallery.pickNone();
  else if (act) decideMany(act);
});
start().catch((error) => say(error.message));
