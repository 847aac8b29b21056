// Zoom and pan of the large view, in shares of the image, so that they stay from image to image.
const NEAREST = 64; // screen pixels a pixel of the image, at most

export class View {
  constructor() { this.zoom = 1; this.cx = 0.5; this.cy = 0.5; this.resize(1, 1); this.image(1, 1); }

  // zoom 1 shows the whole image; cx and cy are what is in the middle.
  get fit() { return Math.min((this.wide - 24) / this.width, (this.high - 24) / this.height, NEAREST); }
  get scale() { return Math.max(1e-6, this.fit) * this.zoom; }

  resize(wide, high) { this.wide = Math.max(32, wide); this.high = Math.max(32, high); }
  image(width, height) { this.width = width; this.height = height; this.zoom = Math.min(this.zoom, this.most); }
  get most() { return Math.max(1, NEAREST / Math.max(1e-6, this.fit)); }

  toScreen(x, y) {
    return [(x - this.cx * this.width) * this.scale + this.wide / 2, (y - this.cy * this.height) * this.scale + this.high / 2];
  }

  toImage(x, y) {
    return [(x - this.wide / 2) / this.scale + this.cx * this.width, (y - this.high / 2) / this.scale + this.cy * this.height];
  }

  whole() { this.zoom = 1; this.cx = this.cy = 0.5; }

  // Zooms by a factor; the place under the pointer stays.
  by(factor, x = this.wide / 2, y = this.high / 2) {
    const [ix, iy] = this.toImage(x, y);
    this.zoom = Math.min(this.most, Math.max(0.25, this.zoom * factor));
    const [nx, ny] = this.toImage(x, y);
    this.pan((nx - ix) * this.scale, (ny - iy) * this.scale);
  }

  pan(dx, dy) {
    this.cx = Math.min(1, Math.max(0, this.cx - dx / this.scale / this.width));
    this.cy = Math.min(1, Math.max(0, this.cy - dy / this.scale / this.height));
  }
}
