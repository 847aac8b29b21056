// Decisions on their way to the server: kept over a reload, sent in order, tried again, undone as they were made.
import { ApiError, post } from "./api.js";
import { forget, load, store } from "./drafts.js";
import { plural, problem, say } from "./elements.js";
import { again, entries, events, keep, run, stateSoon } from "./state.js";

const FULL = 4000; // ms until a full disk, or a locked output, is tried again
let waiting = []; // groups: {changes: [...]}
let made = []; // numbers of decisions, a list a group, for undo
let busy = false;
export const hooks = { conflict: async () => {}, undone: () => "" };

export const canUndo = () => made.length > 0 || waiting.length > 0;
const changed = () => events.dispatchEvent(new CustomEvent("decisions"));

export function startDeciding() {
  waiting = load("waiting", []);
  made = load("made", []).slice(-200);
  if (waiting.length) say(`${plural(waiting.length, "decision")} of before the reload are being sent`);
  changed();
  send();
}

// Decides on entries as one; returns at once. What the page shows follows before the server has answered.
export function decide(changes) {
  waiting.push({ changes });
  store("waiting", waiting);
  for (const { id, verdict, how, cause, note } of changes) {
    const item = entries.get(id);
    if (item) keep([{ ...item, later: false, decision: { number: 0, verdict, how, cause, note, who: run.who, when: "" } }]);
  }
  changed();
  send();
}

async function send() {
  if (busy) return;
  busy = true;
  while (waiting.length) {
    const group = waiting[0];
    try {
      const { results } = await post("/api/decide", { changes: group.changes });
      waiting.shift();
      store("waiting", waiting);
      problem("kept", "");
      await take(results, group.changes);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 507 || error.status === 423) {
        problem("kept", `${error.message}. Your decision is kept here and tried again.`);
        await new Promise((go) => setTimeout(go, FULL));
      } else if (error.status === 401) {
        break;
      } else {
        refused(group, error.message);
      }
    }
  }
  busy = false;
  changed();
  stateSoon();
}

function refused(group, sentence) {
  waiting.shift();
  store("waiting", waiting);
  say(`Not decided: ${sentence}`);
  again(group.changes.map((change) => change.id)).catch(() => {});
}

async function take(results, changes) {
  keep(results.map((result) => result.item).filter(Boolean));
  // An entry that is decided again before the first answer came names the decision that this one made.
  const numbers = new Map(results.filter((r) => r.number).map((r) => [r.id, r.number]));
  for (const group of waiting) for (const change of group.changes) change.seen = numbers.get(change.id) ?? change.seen;
  if (numbers.size) made.push([...numbers.values()]);
  store("made", made.slice(-200));
  for (const result of results) {
    const mine = changes.find((change) => change.id === result.id);
    if (result.number) forget(`draft ${result.id}`);
    if (result.refused) say(`${result.item.key}: ${result.refused}`);
    if (result.left && mine?.verdict === "reject") say(result.left);
    if (result.conflict && !own(result.conflict, mine)) await hooks.conflict(result, mine);
    else if (result.conflict) { made.push([result.conflict.now.number]); forget(`draft ${result.id}`); }
  }
}

// An answer that got lost: the decision in between is this one itself.
function own(conflict, mine) {
  const now = conflict.now;
  return mine && now.who === run.who && now.seen === mine.seen && now.verdict === mine.verdict && now.how === mine.how
    && (now.note ?? "") === (mine.note ?? "") && (now.cause ?? "") === (mine.cause ?? "")
    && (mine.verdict !== "mask" || conflict.mine === conflict.theirs);
}

// Undoes the last group as one.
export async function undo() {
  while (waiting.length && busy) await new Promise((go) => setTimeout(go, 30));
  const numbers = made.pop();
  if (!numbers) return say("Nothing to undo");
  store("made", made);
  try {
    const { results } = await post("/api/undo", { numbers });
    keep(results.map((result) => result.item).filter(Boolean));
    const bad = results.find((result) => result.refused || result.conflict);
    const where = hooks.undone(results.map((result) => result.id));
    say(bad ? bad.refused ?? "Somebody decided on it since; nothing undone" : `Undone: ${plural(numbers.length, "decision")}${where}`);
  } catch (error) {
    made.push(numbers);
    say(`Not undone: ${error.message}`);
  }
  changed();
  stateSoon();
}

export async function putOff(ids, later) {
  for (const id of ids) if (entries.has(id)) keep([{ ...entries.get(id), later }]);
  await post("/api/later", { ids, later }).catch((error) => say(error.message));
  stateSoon();
}
