// The draft of a mask: its pixels, prompt and steps; proposals of the model; what is refined on the server.
import { post } from "./api.js";
import { forget, load, store } from "./drafts.js";
import { say } from "./elements.js";
import { MaskImage, decode, encode, fromRuns, toRuns } from "./masks.js";
import { Steps } from "./steps.js";

export const MASK = [255, 45, 146];
const PREVIEW = [0, 170, 255];
const SUBJECT = [10, 150, 70], BACKGROUND = [200, 40, 30]; // of strokes for the model
const SAVE = 250; // ms after the last change, a draft is stored

export class Editor {
  constructor(changed) { this.changed = changed; this.item = null; this.after = []; }

  // Begins with the mask of an entry, or with the draft that was left.
  begin(item, bits) {
    this.flush();
    this.item = item;
    [this.height, this.width] = item.size;
    this.original = bits;
    this.clean();
    const draft = load(`draft ${item.id}`, null);
    if (draft && draft.key === item.key && String(draft.size) === String(item.size)) this.revive(draft);
    this.image = new MaskImage(this.width, this.height, MASK);
    this.image.paint(this.bits);
  }

  clean() {
    this.bits = this.original.slice();
    this.box = this.item.box ? [...this.item.box] : null;
    this.points = [];
    this.how = [];
    this.masks = [];
    this.previous = null;
    this.steps = new Steps();
    this.preview = null;
    this.marks = null;
    this.dirty = false;
    this.turn = (this.turn ?? 0) + 1;
  }

  revive(draft) {
    try {
      this.bits = decode(draft.runs, this.width * this.height);
      Object.assign(this, { box: draft.box, points: draft.points, how: draft.how, dirty: true });
      this.mark(draft.marks && draft.marks.map((text) => decode(text, this.width * this.height)));
      say("Your draft is back");
    } catch { forget(`draft ${this.item.id}`); }
  }

  snapshot() {
    const { marks } = this;
    return { runs: toRuns(this.bits), box: this.box && [...this.box], points: this.points.map((p) => [...p]), how: [...this.how],
      marks: marks && [marks.subject, marks.background].map(toRuns) };
  }

  // Takes strokes for the model: two masks, of subject and background; null for none.
  mark(pair) {
    this.marks = null;
    if (!pair) return;
    const drawn = (bits, colour) => {
      const image = new MaskImage(this.width, this.height, colour, 170);
      image.paint(bits);
      return image;
    };
    const [subject, background] = pair;
    this.marks = { subject, background, images: [drawn(background, BACKGROUND), drawn(subject, SUBJECT)] };
  }

  // Call before each step.
  step(how) {
    this.steps.push(this.snapshot());
    if (!this.how.includes(how)) this.how.push(how);
    this.dirty = true;
    this.turn += 1; // an answer to what was asked before comes too late
  }

  restore(state) {
    if (!state) return false;
    this.bits = fromRuns(state.runs, this.width * this.height);
    Object.assign(this, { box: state.box, points: state.points, how: state.how, masks: [], preview: null });
    this.mark(state.marks && state.marks.map((runs) => fromRuns(runs, this.width * this.height)));
    this.turn += 1;
    this.dirty = this.steps.past.length > 0 || this.how.length > 0;
    this.painted();
    return true;
  }

  undo() { return this.restore(this.steps.undo(this.snapshot())); }
  redo() { return this.restore(this.steps.redo(this.snapshot())); }

  drop() {
    forget(`draft ${this.item.id}`);
    clearTimeout(this.saving);
    this.saving = undefined;
    this.clean();
    this.painted(null, false);
  }

  // Shows changed pixels, and stores the draft soon.
  painted(rectangle = null, keep = true) {
    this.image.paint(this.bits, rectangle);
    if (keep) {
      clearTimeout(this.saving);
      this.saving = setTimeout(() => this.flush(), SAVE);
    }
    this.changed();
  }

  flush() {
    if (this.saving === undefined || !this.item) return;
    clearTimeout(this.saving);
    this.saving = undefined;
    const { id, key, size } = this.item;
    if (!this.dirty) return forget(`draft ${id}`);
    const draft = { at: Date.now(), key, size, runs: encode(this.bits), box: this.box, points: this.points, how: this.how,
      marks: this.marks && [encode(this.marks.subject), encode(this.marks.background)] };
    if (!store(`draft ${id}`, draft)) say("The browser has no room for this draft: it would not survive a reload");
  }

  done() { clearTimeout(this.saving); this.saving = undefined; this.dirty = false; }

  take(bits) { this.bits = bits; this.preview = null; this.painted(); }

  choose(k) {
    const found = this.masks[k];
    if (!found) return false;
    this.chosen = k;
    this.take(decode(found.runs, this.width * this.height));
    say(`Mask ${k + 1} of ${this.masks.length}`, false);
    return true;
  }

  // Asks the model for masks of the prompt; while it works only the latest wish waits.
  propose(hover = null) {
    this.wish = { hover, turn: this.turn };
    if (!this.asking) this.ask();
  }

  async ask() {
    this.asking = true;
    while (this.wish) {
      const { hover, turn } = this.wish, item = this.item;
      this.coming = !hover;
      this.wish = null;
      try {
        const found = await post(`/api/items/${item.id}/propose`, this.prompt(hover));
        if (item === this.item && turn === this.turn) this.answer(found, hover);
      } catch (error) {
        if (item === this.item && !hover) say(error.message);
      }
    }
    this.asking = this.coming = false;
    this.changed();
    const next = this.after;
    this.after = [];
    for (const act of next) act();
  }

  prompt(hover) {
    const points = hover ? [...this.points, hover] : this.points;
    const asked = {};
    // The box of the run may hold the wrong subject: points and strokes stand alone unless a person drew the box.
    if (this.box && (this.how.includes("box") || !(points.length || this.marks))) asked.box = this.box;
    if (points.length) asked.points = points;
    if (this.marks) {
      asked.subject = encode(this.marks.subject);
      asked.background = encode(this.marks.background);
    }
    if (this.previous && points.length > 1) asked.previous = this.previous;
    return asked;
  }

  answer(found, hover) {
    const best = found.masks.reduce((a, mask, k) => ((mask.score ?? 0) > (found.masks[a].score ?? 0) ? k : a), 0);
    if (hover) {
      this.preview = new MaskImage(this.width, this.height, PREVIEW, 90);
      this.preview.paint(decode(found.masks[best].runs, this.width * this.height));
      return this.changed();
    }
    this.masks = found.masks;
    this.previous = found.previous;
    this.choose(best);
    if (found.masks.length > 1) say(`${found.masks.length} masks: 1 to ${found.masks.length} choose`, false);
  }

  // Acts once the masks that were asked for are there: a number or Enter never means those of an earlier box.
  soon(act) {
    if (!this.coming && !(this.wish && !this.wish.hover)) return act();
    const item = this.item;
    this.after.push(() => { if (item === this.item) act(); });
    return true;
  }

  async refine(op, by = 1) {
    const item = this.item, turn = this.turn;
    try {
      const found = await post(`/api/items/${item.id}/refine`, { runs: encode(this.bits), op, by });
      if (item !== this.item || turn !== this.turn) return;
      this.step("refine");
      this.take(decode(found.runs, this.width * this.height));
      say({ grow: "Grown", shrink: "Shrunk", holes: "Holes filled", largest: "Largest part kept" }[op], false);
    } catch (error) { say(error.message); }
  }

  change(extra) {
    return { id: this.item.id, seen: this.item.revision, verdict: "mask", how: this.how.join(", ") || "brush", runs: encode(this.bits), box: this.how.includes("box") ? this.box : null, ...extra };
  }
}
