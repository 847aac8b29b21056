// One entry large: going from one to the next, modes, tools, decisions.
import { post } from "./api.js";
import { spoken, stateOf } from "./card.js";
import { decide, putOff } from "./deciding.js";
import { Editor } from "./editor.js";
import { $, say } from "./elements.js";
import { base, image, mask, sideFor } from "./loading.js";
import { acts, panel } from "./panel.js";
import { Pointer } from "./pointer.js";
import { Stage } from "./stage.js";
import { entries, entry, events, fetchEntries, place, queue, run } from "./state.js";
import { toolbar, why } from "./toolbar.js";
import { Box, Brush, Lasso, Marks, Points } from "./tools.js";
import { View } from "./view.js";

const AHEAD = 3; // entries fetched ahead
const MODES = ["source", "outline", "result"];

export class Viewer {
  constructor(closed) {
    this.closed = closed;
    this.view = new View();
    this.stage = new Stage(this.view);
    this.changed = this.changed.bind(this);
    this.moved = this.moved.bind(this);
    this.choose = this.choose.bind(this);
    this.editor = new Editor(this.changed);
    const given = [this.editor, this.view];
    this.tools = { box: new Box(...given), points: new Points(...given), marks: new Marks(...given), brush: new Brush(...given, "brush", 1), eraser: new Brush(...given, "eraser", 0), lasso: new Lasso(...given) };
    this.pointer = new Pointer(this);
    this.cause = "";
    this.note = "";
    this.typed = []; // what was typed ahead
    events.addEventListener("items", (event) => { if (this.id && event.detail.includes(this.id)) this.refreshed(); });
    addEventListener("pagehide", () => this.editor.flush());
    document.addEventListener("visibilitychange", () => this.editor.flush());
  }

  get readonly() { return run.readonly; }
  get place() { return place(this.id); }
  // Another entry has been asked for than the one that is shown.
  get loading() { return this.item?.id !== this.id; }

  // Acts on the entry that was asked for, once it is shown: never on the one that still is.
  once(act) {
    if (!this.loading) return act();
    this.typed.push(act);
    return true;
  }

  async open(id) {
    if (id === undefined) return;
    const turn = (this.turn = (this.turn ?? 0) + 1);
    this.pointer.lift();
    this.editor.flush();
    $("gallery").hidden = true;
    $("viewer").hidden = false;
    this.id = id;
    this.at = this.place < 0 ? this.at ?? 0 : this.place; // the next one after an entry outside the filters
    const item = entries.get(id) ?? (await entry(id).catch((error) => say(error.message)));
    if (turn !== this.turn) return;
    if (!item) { this.typed = []; return; }
    await this.show(item, turn, true);
    if (turn !== this.turn) return;
    this.ahead();
    while (this.typed.length && !this.loading) this.typed.shift()();
  }

  async show(item, turn, fresh) {
    if (fresh) { this.cause = item.decision?.cause ?? ""; this.note = item.decision?.note ?? ""; }
    this.stage.resize();
    const side = sideFor(item, this.view.fit);
    const [shown, bits] = await Promise.all([base(item, side).catch(() => null), item.size ? mask(item).catch(() => null) : null]);
    if (turn !== this.turn) return;
    this.item = item;
    this.stamp = item.stamp;
    if (item.size) this.view.image(item.size[1], item.size[0]);
    Object.assign(this.stage, { base: shown, written: null, cross: null, at: null, editor: null });
    if (item.size && bits) {
      this.editor.begin(item, bits);
      this.stage.editor = this.editor;
    } else this.editor.item = null;
    this.side = side;
    for (const tool of Object.values(this.tools)) tool.live = !why("points") || (tool.name === "box" && run.model.can.includes("box"));
    this.changed();
    this.moved();
    $("canvas").setAttribute("aria-label", `${spoken(item)}. ${this.stage.mode} shown`);
    $("canvas").focus({ preventScroll: true });
    say(spoken(item), false);
    $("where").textContent = shown ? `${this.stage.mode}` : item.problem || item.detail || "no image";
    if (item.twin_size) image(item, "result", side).then((found) => { if (this.item === item) { this.stage.written = found; this.stage.later(); } }).catch(() => {});
  }

  // Entries that come next: fetched, decoded, and told to the server, which prepares its model for them.
  async ahead() {
    const at = this.place;
    const ids = [...queue.ids.slice(at + 1, at + 1 + AHEAD), ...queue.ids.slice(Math.max(0, at - 1), at)];
    await fetchEntries([...ids, ...queue.ids.slice(at + 1, at + 20)]).catch(() => {});
    for (const id of ids) {
      const item = entries.get(id);
      if (!item) continue;
      base(item, sideFor(item, this.view.fit)).catch(() => {});
      if (item.size) mask(item).catch(() => {});
    }
    if (run.model.can.length) post("/api/prepare", { ids: [this.id, ...ids] }).catch(() => {});
  }

  close() {
    this.pointer.lift();
    this.editor.flush();
    this.turn += 1;
    $("viewer").hidden = true;
    $("gallery").hidden = false;
    const id = this.id;
    this.id = null;
    this.typed = [];
    this.closed(id);
  }

  // The server said something new about this entry.
  refreshed() {
    const item = entries.get(this.id);
    if (!item || !this.item || this.item.id !== item.id) return;
    if (item.stamp !== this.stamp && !this.editor.dirty) {
      this.show(item, this.turn, false);
    } else {
      if (this.editor.item && !this.editor.dirty) this.editor.item = item;
      this.item = item;
      this.changed();
    }
  }

  changed() {
    this.editor.changes = (this.editor.changes ?? 0) + 1;
    this.stage.tool = this.tool;
    this.stage.later();
    this.soon ??= requestAnimationFrame(() => {
      this.soon = undefined;
      if (!this.item || $("viewer").hidden) return;
      $("canvas").dataset.tool = this.tool?.name ?? "";
      toolbarOnce(this);
      panel(this);
      acts(this);
    });
  }

  // Zoomed or panned: a sharper image where one is needed.
  moved() {
    this.stage.later();
    if (!this.item?.size) return;
    const side = sideFor(this.item, this.view.scale), item = this.item;
    if (side <= this.side) return;
    this.side = side;
    base(item, side).then((found) => { if (this.item?.id === item.id) { this.stage.base = found; this.stage.later(); } }).catch(() => {});
  }

  where([x, y], aloud = false, down = false) {
    const { editor } = this;
    if (!editor.item) return;
    const i = Math.floor(x), j = Math.floor(y);
    const inside = i >= 0 && j >= 0 && i < editor.width && j < editor.height;
    const text = inside ? `${i}, ${j} ${editor.bits[j * editor.width + i] ? "subject" : "background"}${down ? ", down" : ""}` : "";
    $("where").textContent = text || this.stage.mode;
    if (aloud && text) { clearTimeout(this.saying); this.saying = setTimeout(() => say(text, false), 250); }
  }

  go(by) {
    const to = (this.place < 0 ? this.at : this.place) + by;
    if (to < 0 || to >= queue.ids.length) { say(to < 0 ? "This is the first one" : "This was the last one"); return false; }
    this.open(queue.ids[to]);
    return true;
  }

  setCause(k) {
    const name = run.causes[k];
    if (!name) return;
    this.cause = this.cause === name ? "" : name;
    say(this.cause ? `Cause: ${name}` : "No cause", false);
    this.changed();
  }

  verdict(verdict) {
    if (this.readonly) return say("This server only shows: nothing can be decided here");
    if (this.editor.item && this.editor.dirty && verdict !== "reject") return say("There is a draft: save it, or drop it first");
    if (verdict === "reject") this.editor.done();
    decide([{ id: this.item.id, seen: this.item.revision, verdict, how: verdict, cause: this.cause, note: this.note }]);
    say({ accept: "Accepted", reject: "Rejected" }[verdict], false);
    return this.go(1);
  }

  save() {
    const { editor } = this;
    if (this.readonly || !editor.item || !editor.dirty) return say("No new mask to save");
    if (!editor.bits.includes(1)) return say("The mask is empty: reject the image instead");
    editor.flush(); // the draft stays until the server has the decision
    const change = editor.change({ cause: this.cause, note: this.note });
    editor.done();
    decide([change]);
    say("Saved", false);
    return this.go(1);
  }

  choose(k) { return this.editor.soon(() => this.chosen(k)); }

  chosen(k) {
    const { editor } = this;
    const masks = editor.masks.length > 1 ? editor.masks.length : 0;
    if (k < masks) { editor.step(editor.how.at(-1) ?? "box"); return editor.choose(k); }
    const other = this.item?.others?.[k - masks];
    if (!other || !editor.item || this.readonly) return false;
    editor.step("box");
    editor.box = other.slice(0, 4);
    this.use("box");
    editor.painted([0, 0, 0, 0]);
    if (this.tools.box.live) editor.propose();
    return true;
  }

  use(name) {
    const reason = why(name);
    if (reason) return say(`${name}: ${reason}`);
    this.pointer.lift();
    this.tool?.leave?.();
    this.tool = this.tools[name];
    if (this.stage.mode !== "outline") this.mode("outline");
    say(`${name}: ${name === "box" ? "drag a corner, or draw a new one" : "on"}`, false);
    return this.changed();
  }

  mode(name) { this.stage.mode = name; $("where").textContent = name; say(name, false); this.stage.later(); }

  // Does what a key or a button asks for; returns whether it was something.
  act(name) {
    const { editor, tool, view } = this, turns = name === "next" || name === "previous";
    if (this.loading && name !== "close" && (!turns || this.typed.length)) return this.once(() => this.act(name));
    if (!this.item && !turns) return name === "close" ? (this.close(), true) : false;
    const draws = editor.item && !this.readonly;
    const acts = {
      accept: () => this.verdict("accept"), reject: () => this.verdict("reject"), save: () => (editor.item ? editor.soon(() => this.save()) : this.save()),
      later: () => { if (this.readonly) return; putOff([this.id], !this.item.later); if (stateOf(this.item) !== "later") this.go(1); },
      next: () => this.go(1), previous: () => this.go(-1), swap: () => this.mode(MODES[(MODES.indexOf(this.stage.mode) + 1) % 3]),
      kind: () => { if (tool && "label" in tool) { tool.label = 1 - tool.label; say(tool.label ? "Subject" : "Background"); this.changed(); } },
      remove: () => this.tools.points.remove(),
      back: () => draws && (editor.undo() || say("No stroke to undo")), again: () => draws && (editor.redo() || say("No stroke to redo")),
      reset: () => draws && (editor.drop(), say("Draft dropped")),
      thinner: () => this.thick(1 / 1.3), thicker: () => this.thick(1.3),
      in: () => { view.by(1.4); this.moved(); }, out: () => { view.by(1 / 1.4); this.moved(); }, fit: () => { view.whole(); this.moved(); },
      note: () => $("note")?.focus(),
      close: () => { if (this.tool) { this.pointer.lift(); this.tool.leave?.(); this.tool = null; this.stage.cross = null; this.changed(); } else this.close(); },
    };
    if (this.tools[name]) this.use(name);
    else if (["grow", "shrink", "holes", "largest"].includes(name)) { if (draws) editor.refine(name); }
    else if (acts[name]) acts[name]();
    else return false;
    return true;
  }

  thick(by) {
    const { tool } = this;
    if (!tool?.size) return;
    tool.size = Math.min(400, Math.max(1, by > 1 ? Math.ceil(tool.size * by) : Math.floor(tool.size * by)));
    this.changed();
  }
}

// The toolbar is made again only when something on it changed: its buttons keep the focus.
function toolbarOnce(viewer) {
  const now = `${viewer.tool?.name} ${run.readonly} ${run.model.can}`;
  if (viewer.bar === now) return;
  viewer.bar = now;
  const focused = document.activeElement?.closest?.("#tools button")?.dataset.name;
  toolbar(viewer);
  if (focused) $("tools").querySelector(`[data-name="${focused}"]`)?.focus();
}
