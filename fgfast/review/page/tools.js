// Tools of mending. Each gets places in pixels of the image: down, move, up; hover without a button; draw on the stage.
import { fillPath, line } from "./masks.js";

const NEAR = 12; // screen px within which a corner or a point is caught
const clamp = (value, most) => Math.min(most, Math.max(0, value));

export class Box {
  constructor(editor, view) { Object.assign(this, { editor, view, name: "box" }); }

  corner(p) {
    const { box } = this.editor;
    if (!box) return null;
    const near = NEAR / this.view.scale;
    const x = [0, 2].find((k) => Math.abs(box[k] - p[0]) < near), y = [1, 3].find((k) => Math.abs(box[k] - p[1]) < near);
    const along = (k, a, b) => p[k] > box[a] - near && p[k] < box[b] + near;
    if (x !== undefined && y !== undefined) return [x, y];
    if (x !== undefined && along(1, 1, 3)) return [x, null];
    if (y !== undefined && along(0, 0, 2)) return [null, y];
    return null;
  }

  down(p) {
    const caught = this.corner(p);
    this.editor.step("box");
    this.caught = caught;
    if (!caught) { this.editor.box = [p[0], p[1], p[0], p[1]]; this.caught = [2, 3]; }
  }

  move(p) {
    const e = this.editor, [x, y] = this.caught;
    if (x !== null) e.box[x] = clamp(p[0], e.width);
    if (y !== null) e.box[y] = clamp(p[1], e.height);
    const box = this.sorted();
    if (this.live && box[2] - box[0] >= 2 && box[3] - box[1] >= 2) e.propose();
    e.changed();
  }

  up() {
    const e = this.editor, box = this.sorted();
    this.caught = null;
    if (box[2] - box[0] < 1 || box[3] - box[1] < 1) { e.undo(); return; }
    e.box = box;
    e.painted([0, 0, 0, 0]);
    if (this.live) e.propose();
  }

  sorted() {
    const [a, b, c, d] = this.editor.box;
    return [Math.min(a, c), Math.min(b, d), Math.max(a, c), Math.max(b, d)];
  }

  draw(context) {
    const { box } = this.editor;
    if (!box) return;
    const [x0, y0] = this.view.toScreen(box[0], box[1]), [x1, y1] = this.view.toScreen(box[2], box[3]);
    twice(context, () => context.strokeRect(x0, y0, x1 - x0, y1 - y0));
    for (const [x, y] of [[x0, y0], [x1, y0], [x0, y1], [x1, y1]]) {
      context.fillStyle = "#fff";
      context.fillRect(x - 5, y - 5, 10, 10);
      context.strokeStyle = "#111";
      context.lineWidth = 1.5;
      context.strokeRect(x - 5, y - 5, 10, 10);
    }
  }
}

export class Points {
  constructor(editor, view) { Object.assign(this, { editor, view, name: "points", label: 1, chosen: -1 }); }

  near(p) {
    const near = NEAR / this.view.scale;
    return this.editor.points.findIndex(([x, y]) => Math.hypot(x - p[0], y - p[1]) < near);
  }

  down(p, other) {
    const e = this.editor, found = this.near(p);
    e.step("points");
    e.preview = null;
    if (found >= 0) { this.chosen = found; return; }
    e.points.push([clamp(p[0], e.width), clamp(p[1], e.height), other ? 1 - this.label : this.label]);
    this.chosen = e.points.length - 1;
    e.changed();
  }

  move(p) {
    const e = this.editor, point = e.points[this.chosen];
    if (!point) return;
    point[0] = clamp(p[0], e.width);
    point[1] = clamp(p[1], e.height);
    if (this.live) e.propose();
    e.changed();
  }

  up() {
    this.editor.painted([0, 0, 0, 0]);
    if (this.live) this.editor.propose();
  }

  hover(p) {
    const e = this.editor;
    if (!this.live || p[0] < 0 || p[1] < 0 || p[0] > e.width || p[1] > e.height || this.near(p) >= 0) return this.leave();
    return e.propose([p[0], p[1], this.label]);
  }

  leave() { if (this.editor.preview) { this.editor.preview = null; this.editor.changed(); } }

  remove(k = this.chosen) {
    const e = this.editor;
    if (!e.points[k]) return;
    e.step("points");
    e.points.splice(k, 1);
    this.chosen = e.points.length - 1;
    e.painted([0, 0, 0, 0]);
    if (this.live && (e.points.length || e.box)) e.propose();
  }

  draw(context) {
    this.editor.points.forEach(([x, y, label], k) => {
      const [sx, sy] = this.view.toScreen(x, y);
      context.beginPath();
      context.arc(sx, sy, k === this.chosen ? 9 : 7, 0, 7);
      context.fillStyle = label ? "#0a7a3c" : "#b3261e";
      context.fill();
      context.lineWidth = 2;
      context.strokeStyle = "#fff";
      context.stroke();
      context.beginPath();
      context.moveTo(sx - 3.5, sy); context.lineTo(sx + 3.5, sy);
      if (label) { context.moveTo(sx, sy - 3.5); context.lineTo(sx, sy + 3.5); }
      context.stroke();
    });
  }
}

export class Brush {
  constructor(editor, view, name, value) { Object.assign(this, { editor, view, name, value, size: 12 }); }

  down(p, other) {
    this.editor.step(this.name === "eraser" ? "brush" : this.name);
    this.now = other ? 1 - this.value : this.value;
    this.last = p;
    this.move(p);
  }

  move(p) {
    const e = this.editor;
    const changed = line(e.bits, e.width, e.height, this.last, p, this.size, this.now);
    this.last = p;
    e.painted(changed);
  }

  up() {}

  draw(context, at) {
    if (!at) return;
    const [x, y] = this.view.toScreen(...at);
    twice(context, () => { context.beginPath(); context.arc(x, y, Math.max(1.5, (this.size / 2) * this.view.scale), 0, 7); context.stroke(); });
  }
}

export class Lasso {
  constructor(editor, view) { Object.assign(this, { editor, view, name: "lasso", label: 1, path: [] }); }

  down(p, other) { this.path = [p]; this.value = other ? 1 - this.label : this.label; }
  move(p) { this.path.push(p); this.editor.changed(); }

  up() {
    const e = this.editor;
    if (this.path.length > 2) {
      e.step("lasso");
      fillPath(e.bits, e.width, e.height, this.path, this.value);
      e.painted();
    }
    this.path = [];
    e.changed();
  }

  draw(context) {
    if (this.path.length < 2) return;
    context.beginPath();
    for (const p of this.path) context.lineTo(...this.view.toScreen(...p));
    twice(context, () => context.stroke());
  }
}

// Strokes that tell the model what is subject and what is background.
export class Marks {
  constructor(editor, view) { Object.assign(this, { editor, view, name: "marks", label: 1, size: 12 }); }

  down(p, other) {
    const e = this.editor;
    e.step("strokes");
    if (!e.marks) e.mark([0, 0].map(() => new Uint8Array(e.width * e.height)));
    this.now = other ? 1 - this.label : this.label;
    this.last = p;
    this.move(p);
  }

  move(p) {
    const e = this.editor, mine = this.now ? e.marks.subject : e.marks.background;
    const changed = line(mine, e.width, e.height, this.last, p, this.size, 1);
    line(this.now ? e.marks.background : e.marks.subject, e.width, e.height, this.last, p, this.size, 0);
    this.last = p;
    e.marks.images[0].paint(e.marks.background, changed);
    e.marks.images[1].paint(e.marks.subject, changed);
    e.changed();
  }

  up() {
    this.editor.painted([0, 0, 0, 0]);
    this.editor.propose();
  }

  draw(context, at) {
    const { marks } = this.editor;
    if (marks) {
      const [x, y] = this.view.toScreen(0, 0), by = this.view.scale;
      for (const image of marks.images) context.drawImage(image.canvas, x, y, image.width * by, image.height * by);
    }
    Brush.prototype.draw.call(this, context, at);
  }
}

// A dark line and a light one upon it: seen on any image.
export function twice(context, stroke) {
  context.setLineDash([]);
  context.lineWidth = 3;
  context.strokeStyle = "#000a";
  stroke();
  context.lineWidth = 1.5;
  context.strokeStyle = "#fff";
  stroke();
}
