// The details beside the stage: what is doubtful, proposals, cause, note, history; and the decision below it.
import { get } from "./api.js";
import { DOUBT, doubt, stateOf } from "./card.js";
import { when } from "./dialogs.js";
import { $, el } from "./elements.js";
import { keyOf, shown } from "./keys.js";
import { place, queue, run } from "./state.js";

const WORDS = { accept: "✓ Accepted", reject: "✕ Rejected", mask: "✎ Mended", undo: "↶ Undone", later: "◷ Later" };
const kbd = (name) => el("kbd", { textContent: shown(keyOf(name)) });
const part = (title, ...children) => el("section", {}, el("h3", { textContent: title }), ...children);

export function panel(viewer) {
  const { item, editor } = viewer;
  const note = $("note");
  const keepFocus = note && document.activeElement === note;
  const open = $("past")?.open;
  if (keepFocus) return;
  $("side").replaceChildren(...[head(viewer), flags(item), proposals(viewer), size(viewer), points(viewer, editor), cause(viewer), noteField(viewer), past(item, open)].filter(Boolean));
}

function head({ item }) {
  const state = stateOf(item), at = place(item.id);
  const by = item.decision?.who ? ` by ${item.decision.who}, ${when(item.decision.when)}` : "";
  const about = [item.class, item.split, item.size && `${item.size[1]} × ${item.size[0]}`, item.status].filter(Boolean).join(" · ");
  return el("section", {}, el("h2", { textContent: item.key }), el("p", { className: "soft", textContent: about }),
    el("p", { className: "soft", title: DOUBT, textContent: `${at < 0 ? "Outside these filters" : `${(at + 1).toLocaleString("en")} of ${queue.ids.length.toLocaleString("en")}`}, doubt ${doubt(item.doubt)}` }),
    item.problem || item.detail ? el("p", { className: "problem", textContent: item.problem || item.detail }) : null,
    state ? el("p", { textContent: `${WORDS[state]}${by}${item.decision?.note ? `: ${item.decision.note}` : ""}` }) : null);
}

function flags(item) {
  if (!item.flags.length) return null;
  const most = Math.max(...item.flags.map((flag) => flag.share), 1e-9);
  return part("Why it is doubtful", el("ul", {}, ...item.flags.map((flag) => {
    const bar = el("span", { className: "bar" });
    bar.style.width = `${Math.max(3, (100 * flag.share) / most)}%`;
    return el("li", { textContent: flag.sentence || flag.name, title: `${flag.name}: ${flag.number}` }, bar);
  })));
}

function proposals({ editor, item, tool, choose, readonly }) {
  if (readonly || !editor.item) return null;
  const masks = editor.masks.length > 1 ? editor.masks.map((mask, k) => choice(k, `Mask${mask.score === null ? "" : ` ${mask.score.toFixed(2)}`}`, k === editor.chosen, choose)) : [];
  const boxes = (item.others ?? []).slice(0, 9 - masks.length).map((other, k) => choice(masks.length + k, `${other[5] || "box"} ${(other[4] ?? 0).toFixed(2)}`, false, choose));
  if (!masks.length && !(boxes.length && (!tool || tool.name === "box"))) return null;
  return part("Proposals", el("div", { className: "thumbs" }, ...masks, ...boxes));
}

const choice = (k, text, pressed, choose) =>
  el("button", { type: "button", "aria-pressed": String(pressed), onclick: () => choose(k) }, el("kbd", { textContent: k + 1 }), ` ${text}`);

function size({ tool, moved }) {
  if (!tool?.size) return null;
  const text = el("label", { textContent: `${tool.size} px across`, htmlFor: "size" });
  const input = el("input", { id: "size", type: "range", min: 0, max: 100, value: Math.round(100 * Math.log(tool.size) / Math.log(400)) });
  input.addEventListener("input", () => { tool.size = Math.max(1, Math.round(400 ** (input.value / 100))); text.textContent = `${tool.size} px across`; moved(); });
  return part("Size", text, input);
}

function points({ tool, tools }, editor) {
  if (!["points", "lasso", "marks"].includes(tool?.name)) return null;
  const kind = (label, text) => el("button", { type: "button", "aria-pressed": String(tool.label === label), textContent: text, onclick: (event) => { tool.label = label; event.currentTarget.parentElement.querySelectorAll("button").forEach((b) => b.setAttribute("aria-pressed", String(b === event.currentTarget))); } });
  const list = tool.name !== "points" ? [] : editor.points.map(([x, y, label], k) =>
    el("li", {}, `${label ? "+ subject" : "− background"} ${Math.floor(x)}, ${Math.floor(y)} `, el("button", { type: "button", textContent: "Remove", "aria-label": `Remove point ${k + 1}`, onclick: () => tools.points.remove(k) })));
  return part("Next is", el("div", { className: "thumbs" }, kind(1, "+ Subject"), kind(0, "− Background")), list.length ? el("ul", {}, ...list) : null);
}

function cause(viewer) {
  if (viewer.readonly) return null;
  return part("What is wrong (Shift and number)", el("div", { className: "chips" }, ...run.causes.map((name, k) =>
    el("button", { type: "button", "aria-pressed": String(viewer.cause === name), onclick: () => viewer.setCause(k) }, name, el("kbd", { textContent: k + 1 })))));
}

function noteField(viewer) {
  if (viewer.readonly) return null;
  const field = el("textarea", { id: "note", value: viewer.note, "aria-label": "Note", maxLength: 10_000 });
  field.addEventListener("input", () => { viewer.note = field.value; });
  return part("Note", field);
}

function past(item, open) {
  if (!item.revision) return null;
  const list = el("ul");
  const made = el("details", { id: "past", open: Boolean(open) }, el("summary", { textContent: "History" }), list);
  const fill = async () => {
    if (!made.open) return;
    const all = await get(`/api/items/${item.id}/history`).catch(() => []);
    list.replaceChildren(...all.map((d) => el("li", { textContent: `${WORDS[d.verdict]} (${d.how}) by ${d.who}, ${when(d.when)}${d.cause ? `, ${d.cause}` : ""}${d.note ? `: ${d.note}` : ""}` })));
  };
  made.addEventListener("toggle", fill);
  fill();
  return made;
}

export function acts(viewer) {
  const { item, editor, readonly } = viewer;
  const button = (name, text, className = "") => el("button", { type: "button", className, "data-name": name, onclick: () => viewer.act(name) }, `${text} `, kbd(name));
  const draft = editor.item && editor.dirty;
  $("acts").replaceChildren(...[
    button("close", "← Gallery"), button("previous", "Previous"), button("next", "Next"), el("span", { className: "grow" }),
    ...(readonly ? [] : draft
      ? [el("span", { className: "soft", textContent: "draft" }), button("reset", "Drop"), button("save", "Save mask", "save")]
      : [button("later", item.later ? "Not later" : "Later"), button("reject", "Reject", "reject"), button("accept", "Accept", "accept")]),
  ]);
}
