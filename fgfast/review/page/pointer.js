// Mouse, pen, fingers and arrows on the stage: to the tool, or to zoom and pan.
import { $ } from "./elements.js";

export class Pointer {
  constructor(viewer) {
    this.viewer = viewer;
    this.canvas = $("canvas");
    this.fingers = new Map();
    const on = (name, act) => this.canvas.addEventListener(name, act, { passive: false });
    on("pointerdown", (event) => this.down(event));
    on("pointermove", (event) => this.move(event));
    on("pointerup", (event) => this.up(event));
    on("pointercancel", (event) => this.up(event));
    on("pointerleave", () => { viewer.stage.at = null; viewer.tool?.leave?.(); viewer.stage.later(); });
    on("contextmenu", (event) => event.preventDefault());
    on("wheel", (event) => this.wheel(event));
    on("dblclick", (event) => { if (!viewer.tool) { viewer.view.whole(); viewer.moved(); } event.preventDefault(); });
  }

  at(event) { return this.viewer.view.toImage(event.offsetX, event.offsetY); }

  wheel(event) {
    event.preventDefault();
    const unit = event.deltaMode ? 30 : 1;
    this.viewer.view.by(Math.exp(-event.deltaY * unit * 0.0016), event.offsetX, event.offsetY);
    this.viewer.moved();
  }

  down(event) {
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    try { this.canvas.setPointerCapture(event.pointerId); } catch { /* a pointer of a test */ }
    this.fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
    const { tool, editor } = this.viewer;
    this.viewer.stage.cross = null;
    if (this.fingers.size > 1) { this.stop(); return; }
    this.last = [event.offsetX, event.offsetY];
    if (!tool || event.button === 1 || !editor.item || this.viewer.readonly) { this.doing = "pan"; return; }
    this.doing = "tool";
    const eraser = event.pointerType === "pen" && (event.buttons & 32) !== 0;
    tool.down(this.at(event), event.altKey || event.button === 2 || eraser);
  }

  // A second finger: what the first one began is taken back, both zoom and pan.
  stop() {
    const { tool, editor } = this.viewer;
    if (this.doing === "tool") {
      if (tool.name === "lasso") tool.path = [];
      else editor.undo();
    }
    this.doing = "pinch";
    this.spread = null;
  }

  move(event) {
    const { viewer } = this;
    viewer.stage.at = this.at(event);
    viewer.where(viewer.stage.at);
    if (this.fingers.has(event.pointerId)) this.fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
    if (this.doing === "pinch") this.pinch();
    else if (this.doing === "pan") {
      viewer.view.pan(event.offsetX - this.last[0], event.offsetY - this.last[1]);
      this.last = [event.offsetX, event.offsetY];
      viewer.moved();
    } else if (this.doing === "tool") {
      const all = event.getCoalescedEvents?.() ?? [];
      for (const one of all.length && viewer.tool.name !== "box" ? all : [event]) viewer.tool.move(this.at(one));
    } else if (event.pointerType === "mouse" && !event.buttons) viewer.tool?.hover?.(viewer.stage.at);
    viewer.stage.later();
  }

  pinch() {
    const [a, b] = [...this.fingers.values()];
    if (!b) return;
    const now = { x: (a[0] + b[0]) / 2, y: (a[1] + b[1]) / 2, d: Math.hypot(a[0] - b[0], a[1] - b[1]) || 1 };
    if (this.spread) {
      this.viewer.view.pan(now.x - this.spread.x, now.y - this.spread.y);
      this.viewer.view.by(now.d / this.spread.d, now.x, now.y);
      this.viewer.moved();
    }
    this.spread = now;
  }

  up(event) {
    this.fingers.delete(event.pointerId);
    if (this.doing === "tool") this.viewer.tool.up();
    if (this.fingers.size === 0) this.doing = null;
    this.viewer.changed();
  }

  // Arrows move the crosshair; Space puts the tool down and lifts it.
  key(event) {
    const { viewer } = this, { view, stage, tool, editor } = viewer;
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!tool || !editor.item || viewer.readonly || event.ctrlKey || event.metaKey || (!by && event.key !== " ")) return false;
    stage.cross ??= [Math.floor(editor.width / 2) + 0.5, Math.floor(editor.height / 2) + 0.5];
    if (by) {
      const step = event.shiftKey ? 10 : 1;
      stage.cross = [Math.min(editor.width - 0.5, Math.max(0.5, stage.cross[0] + step * by[0])), Math.min(editor.height - 0.5, Math.max(0.5, stage.cross[1] + step * by[1]))];
      this.follow(view, stage.cross);
      if (this.held) tool.move(stage.cross);
    } else if (this.held) {
      tool.up();
      this.held = false;
    } else {
      tool.down(stage.cross, event.altKey);
      if (tool.name === "points") tool.up();
      else this.held = true;
    }
    stage.at = stage.cross;
    viewer.where(stage.cross, true, this.held);
    viewer.changed();
    return true;
  }

  // Lifts the tool when it is changed while it is down.
  lift() {
    if (this.held) this.viewer.tool.up();
    this.held = false;
  }

  follow(view, place) {
    const [x, y] = view.toScreen(...place);
    if (x < 20 || y < 20 || x > view.wide - 20 || y > view.high - 20) view.pan(view.wide / 2 - x, view.high / 2 - y);
  }
}
