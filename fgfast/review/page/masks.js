// Masks: a byte a pixel while they are edited, run lengths (background first) for the server, drafts and undo.
import { base64, words } from "./api.js";

export function toRuns(bits) {
  const runs = [];
  let value = 0, start = 0;
  for (;;) {
    let end = bits.indexOf(1 - value, start);
    if (end < 0) end = bits.length;
    runs.push(end - start);
    if (end === bits.length) return Uint32Array.from(runs);
    start = end;
    value = 1 - value;
  }
}

export function fromRuns(runs, length) {
  const bits = new Uint8Array(length);
  let at = 0;
  runs.forEach((run, k) => { if (k % 2) bits.fill(1, at, at + run); at += run; });
  if (at !== length) throw new Error("the runs have another length than the mask");
  return bits;
}

export const encode = (bits) => base64(toRuns(bits));
export const decode = (text, length) => fromRuns(words(text), length);

// Fills a circle of a diameter in pixels; 1 is one pixel. Returns the rectangle that changed.
export function dab(bits, width, height, x, y, diameter, value) {
  const r = diameter / 2;
  if (diameter <= 1.5) {
    const i = Math.floor(x), j = Math.floor(y);
    if (i >= 0 && j >= 0 && i < width && j < height) bits[j * width + i] = value;
    return [i, j, i + 1, j + 1];
  }
  const y0 = Math.max(0, Math.ceil(y - r - 0.5)), y1 = Math.min(height - 1, Math.floor(y + r - 0.5));
  for (let j = y0; j <= y1; j += 1) {
    const half = Math.sqrt(Math.max(0, r * r - (j + 0.5 - y) ** 2));
    const x0 = Math.max(0, Math.ceil(x - half - 0.5)), x1 = Math.min(width - 1, Math.floor(x + half - 0.5));
    if (x1 >= x0) bits.fill(value, j * width + x0, j * width + x1 + 1);
  }
  return [Math.floor(x - r), y0, Math.ceil(x + r) + 1, y1 + 1];
}

// Draws dabs from one place to the next without gaps.
export function line(bits, width, height, from, to, diameter, value) {
  const length = Math.hypot(to[0] - from[0], to[1] - from[1]);
  const steps = Math.max(1, Math.ceil(length / Math.max(0.5, diameter / 6)));
  let changed = null;
  for (let k = 0; k <= steps; k += 1) {
    const x = from[0] + ((to[0] - from[0]) * k) / steps, y = from[1] + ((to[1] - from[1]) * k) / steps;
    changed = union(changed, dab(bits, width, height, x, y, diameter, value));
  }
  return changed;
}

export const union = (a, b) =>
  !a ? b : !b ? a : [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])];

// Fills the pixels whose centres a closed path surrounds (even-odd), as the lasso's one step.
export function fillPath(bits, width, height, path, value) {
  const ys = path.map((p) => p[1]);
  const y0 = Math.max(0, Math.floor(Math.min(...ys))), y1 = Math.min(height - 1, Math.ceil(Math.max(...ys)));
  for (let j = y0; j <= y1; j += 1) {
    const at = j + 0.5, cuts = [];
    path.forEach(([ax, ay], k) => {
      const [bx, by] = path[(k + 1) % path.length];
      if (ay <= at !== by <= at) cuts.push(ax + ((at - ay) / (by - ay)) * (bx - ax));
    });
    cuts.sort((a, b) => a - b);
    for (let k = 0; k + 1 < cuts.length; k += 2) {
      const x0 = Math.max(0, Math.ceil(cuts[k] - 0.5)), x1 = Math.min(width, Math.ceil(cuts[k + 1] - 0.5));
      if (x1 > x0) bits.fill(value, j * width + x0, j * width + x1);
    }
  }
}

// A canvas with a pixel a pixel of the mask: tinted inside, opaque at its edge, so that it shows without colours, too.
export class MaskImage {
  constructor(width, height, colour, inside = 70) {
    this.width = width;
    this.height = height;
    this.canvas = Object.assign(document.createElement("canvas"), { width, height });
    this.context = this.canvas.getContext("2d");
    this.colour = colour;
    this.inside = inside;
  }

  paint(bits, changed = null) {
    const { width: w, height: h } = this;
    const [a, b, c, d] = changed || [0, 0, w, h];
    const x0 = Math.max(0, a - 1), y0 = Math.max(0, b - 1), x1 = Math.min(w, c + 1), y1 = Math.min(h, d + 1);
    if (x1 <= x0 || y1 <= y0) return;
    const data = this.context.createImageData(x1 - x0, y1 - y0);
    const out = new Uint32Array(data.data.buffer);
    const [red, green, blue] = this.colour;
    const base = (blue << 16) | (green << 8) | red;
    const edge = (base | 0xff000000) >>> 0, fill = (base | (this.inside << 24)) >>> 0;
    for (let y = y0, k = 0; y < y1; y += 1) {
      for (let x = x0, i = y * w + x0; x < x1; x += 1, i += 1, k += 1) {
        if (!bits[i]) continue;
        const inner = x > 0 && y > 0 && x < w - 1 && y < h - 1 && bits[i - 1] && bits[i + 1] && bits[i - w] && bits[i + w];
        out[k] = inner ? fill : edge;
      }
    }
    this.context.putImageData(data, x0, y0);
  }
}
