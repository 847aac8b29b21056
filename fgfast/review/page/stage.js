// What the canvas of the large view shows: image, mask, result, tool.
import { $ } from "./elements.js";
import { MASK } from "./editor.js";
import { MaskImage } from "./masks.js";
import { twice } from "./tools.js";

export class Stage {
  constructor(view) {
    this.view = view;
    this.canvas = $("canvas");
    this.context = this.canvas.getContext("2d");
    this.mode = "outline";
    new ResizeObserver(() => this.resize()).observe(this.canvas);
  }

  resize() {
    const { clientWidth: wide, clientHeight: high } = this.canvas, ratio = devicePixelRatio || 1;
    if (!wide || !high) return;
    this.canvas.width = Math.round(wide * ratio);
    this.canvas.height = Math.round(high * ratio);
    this.view.resize(wide, high);
    this.draw();
  }

  later() { this.frame ??= requestAnimationFrame(() => { this.frame = undefined; this.draw(); }); }

  draw() {
    const { context: c, view, canvas } = this, ratio = devicePixelRatio || 1;
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.clearRect(0, 0, canvas.width, canvas.height);
    if (!this.base) return;
    const [x, y] = view.toScreen(0, 0), wide = view.width * view.scale, high = view.height * view.scale;
    c.imageSmoothingQuality = "high";
    c.imageSmoothingEnabled = view.scale < 4;
    const editor = this.editor;
    if (this.mode === "result" && editor?.item) this.result(x, y, wide, high);
    else c.drawImage(this.base, x, y, wide, high);
    if (editor?.item && this.mode !== "source") {
      c.imageSmoothingEnabled = view.scale < 1;
      if (this.mode === "outline") c.drawImage(editor.image.canvas, x, y, wide, high);
      if (editor.preview) c.drawImage(editor.preview.canvas, x, y, wide, high);
    }
    this.tool?.draw(c, this.at);
    if (this.cross) this.crosshair(...view.toScreen(...this.cross));
  }

  // The result: as it was written, or, for a draft, cut out here over a chequered ground.
  result(x, y, wide, high) {
    const { context: c, editor } = this;
    this.chequers(x, y, wide, high);
    if (!editor.dirty && this.written) {
      const [h, w] = editor.item.twin_size, [ox, oy] = editor.item.offset, by = this.view.scale;
      c.drawImage(this.written, x + ox * by, y + oy * by, w * by, h * by);
      return;
    }
    const cut = this.cut ??= document.createElement("canvas");
    cut.width = this.canvas.width;
    cut.height = this.canvas.height;
    const k = cut.getContext("2d"), ratio = devicePixelRatio || 1;
    k.setTransform(ratio, 0, 0, ratio, 0, 0);
    k.imageSmoothingEnabled = false;
    k.drawImage(this.solid().canvas, x, y, wide, high);
    k.globalCompositeOperation = "source-in";
    k.drawImage(this.base, x, y, wide, high);
    c.drawImage(cut, 0, 0, this.view.wide, this.view.high);
  }

  // The mask without a hole in its tint, made again only after it changed.
  solid() {
    const { editor } = this;
    if (this.shape?.of !== editor.bits || this.shape.changes !== editor.changes) {
      const image = new MaskImage(editor.width, editor.height, MASK, 255);
      image.paint(editor.bits);
      this.shape = { of: editor.bits, changes: editor.changes, image };
    }
    return this.shape.image;
  }

  chequers(x, y, wide, high) {
    const { context: c } = this;
    if (!this.pattern) {
      const small = Object.assign(document.createElement("canvas"), { width: 16, height: 16 }), s = small.getContext("2d");
      s.fillStyle = "#fff"; s.fillRect(0, 0, 16, 16);
      s.fillStyle = "#d5d5d5"; s.fillRect(0, 0, 8, 8); s.fillRect(8, 8, 8, 8);
      this.pattern = c.createPattern(small, "repeat");
    }
    c.fillStyle = this.pattern;
    c.fillRect(x, y, wide, high);
  }

  crosshair(x, y) {
    const { context: c } = this;
    twice(c, () => {
      c.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) { c.moveTo(x + 5 * dx, y + 5 * dy); c.lineTo(x + 18 * dx, y + 18 * dy); }
      c.stroke();
    });
  }
}
