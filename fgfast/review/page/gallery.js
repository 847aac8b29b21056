// The gallery: a window of cards over a queue of any length. Cards are recycled, images fetched when scrolling slows.
import { post } from "./api.js";
import { Card } from "./card.js";
import { $, el, plural } from "./elements.js";
import { entries, events, fetchEntries, fetching, queue } from "./state.js";

const TALLEST = 8_000_000; // px; browsers stop between 17 and 33 millions
const SLOW = 2500; // px/s: below this, images are fetched while scrolling
const REST = 34; // ms without a scroll event: scrolling has ended
const OVER = 1; // rows above and below that are kept
const AHEAD = 200; // entries that are fetched ahead while scrolling, the server's limit
const GAP = 10, EDGE = 14;

export class Gallery {
  constructor(open) {
    this.open = open;
    this.cards = [];
    this.kind = "outline";
    this.picked = new Set();
    this.here = 0;
    this.anchor = 0;
    this.top = 0; // of all rows, in px; scrollTop is this or its image in a shorter space
    this.set = -1;
    this.slow = true;
    this.box = $("scroller");
    this.space = $("space");
    this.box.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.box.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.box.addEventListener("click", (event) => this.clicked(event));
    this.box.addEventListener("dblclick", (event) => { if (this.cardAt(event)) this.open(queue.ids[this.here]); });
    new ResizeObserver(() => { this.measure(); this.render(); }).observe(this.box);
    events.addEventListener("queue", () => this.reset());
    events.addEventListener("items", () => this.later());
    this.modes();
  }

  modes() {
    const names = [["source", "Source"], ["outline", "Outline"], ["result", "Result"]];
    $("modes").replaceChildren(...names.map(([kind, text]) =>
      el("button", { type: "button", textContent: text, "aria-pressed": String(kind === this.kind), onclick: () => this.show(kind) })));
  }

  show(kind) { this.kind = kind; this.modes(); this.render(); }

  swap() { this.show({ source: "outline", outline: "result", result: "source" }[this.kind]); }

  reset() {
    this.picked.clear();
    this.here = this.anchor = 0;
    $("nothing").hidden = queue.ids.length > 0;
    $("count").textContent = plural(queue.ids.length, "entry", "entries");
    this.measure();
    this.scrollTo(0);
    this.tell();
    this.render();
  }

  measure() {
    const width = this.box.clientWidth, narrow = width < 500;
    this.edge = narrow ? 8 : EDGE;
    const wanted = narrow ? 165 : width > 2000 ? 260 : 205;
    this.columns = Math.max(1, Math.floor((width - 2 * this.edge + GAP) / (wanted + GAP)));
    this.wide = Math.floor((width - 2 * this.edge - GAP * (this.columns - 1)) / this.columns);
    this.high = Math.round(this.wide * 0.8) + 48;
    this.rowHigh = this.high + GAP;
    this.view = this.box.clientHeight;
    this.total = Math.ceil(queue.ids.length / this.columns) * this.rowHigh + GAP;
    this.space.style.height = `${Math.min(this.total, TALLEST)}px`;
    this.side = this.wide * (devicePixelRatio || 1) > 300 ? 512 : 256;
  }

  get scaled() { return this.total > TALLEST ? (this.total - this.view) / (TALLEST - this.view) : 1; }

  scrollTo(top) {
    this.top = Math.max(0, Math.min(top, this.total - this.view));
    this.set = Math.round(this.top / this.scaled);
    this.box.scrollTop = this.set;
  }

  // In a queue taller than a browser scrolls, the wheel still moves by its own pixels.
  wheel(event) {
    if (this.scaled === 1 || event.ctrlKey) return;
    event.preventDefault();
    const unit = [1, 40, this.view][event.deltaMode];
    this.note(this.top + event.deltaY * unit);
    this.scrollTo(this.top + event.deltaY * unit);
    this.later();
  }

  scrolled() {
    const at = this.box.scrollTop;
    if (Math.abs(at - this.set) > 1) {
      this.note(at * this.scaled);
      this.top = at * this.scaled;
      this.set = -1;
    }
    this.later();
  }

  note(top) {
    this.down = top >= this.top;
    const now = performance.now(), passed = Math.max(8, now - (this.when ?? 0));
    this.slow = passed > 120 || (1000 * Math.abs(top - this.top)) / passed < SLOW;
    this.when = now;
    clearTimeout(this.rest);
    this.rest = setTimeout(() => { this.slow = true; this.render(); }, REST);
  }

  later() {
    this.frame ??= requestAnimationFrame(() => { this.frame = undefined; this.render(); });
  }

  render() {
    if (!this.columns || !this.view) return;
    const rows = Math.ceil(this.view / this.rowHigh) + 2 * OVER + 1;
    const first = Math.max(0, Math.floor(this.top / this.rowHigh) - OVER) * this.columns;
    const end = Math.min(queue.ids.length, first + rows * this.columns);
    const pool = rows * this.columns;
    while (this.cards.length < pool) this.cards.push(new Card());
    while (this.cards.length > pool) this.cards.pop().node.remove();
    const shift = this.scaled === 1 ? 0 : this.box.scrollTop - this.top;
    const missing = [], hidden = [];
    for (let place = first; place < first + pool; place += 1) {
      const card = this.cards[place % pool];
      if (place >= end) { card.node.remove(); continue; }
      const id = queue.ids[place], item = entries.get(id);
      if (!item) missing.push(id);
      this.put(card, place, shift);
      const y = Math.floor(place / this.columns) * this.rowHigh;
      const seen = y + this.rowHigh > this.top && y < this.top + this.view;
      if (!seen && this.slow) hidden.push(card);
      card.show(place, id, queue.doubts[place], item, this.kind, this.side, this.slow && seen, this.picked.has(id), place === this.here);
    }
    // Images of the rows that are not seen yet come after the others.
    for (const card of hidden) if (card.item) card.load(card.item, this.kind, this.side);
    if (missing.length) this.fetch(missing, first, end);
    const here = queue.ids[this.here];
    if (here !== undefined && this.here >= first && this.here < end) this.box.setAttribute("aria-activedescendant", `card-${here}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  // Fetches what is shown; while scrolling fast, in large pieces, the way one goes.
  fetch(missing, first, end) {
    if (this.slow) fetchEntries(missing).catch(() => {});
    else if (!fetching()) {
      const from = this.down ? first : Math.max(0, end - AHEAD);
      fetchEntries([...queue.ids.slice(from, from + AHEAD)]).catch(() => {});
    }
  }

  put(card, place, shift) {
    const x = this.edge + (place % this.columns) * (this.wide + GAP);
    const y = Math.floor(place / this.columns) * this.rowHigh + shift + 2;
    const where = `translate(${x}px, ${y}px)`;
    const style = card.node.style;
    if (card.where !== where) style.transform = card.where = where;
    if (card.size !== this.wide) {
      card.size = this.wide;
      style.width = `${this.wide}px`;
      style.height = `${this.high}px`;
    }
    if (!card.node.isConnected) this.space.append(card.node);
    card.attribute("aria-posinset", place + 1);
    card.attribute("aria-setsize", queue.ids.length);
  }

  cardAt(event) {
    const node = event.target.closest(".card");
    return node && this.cards.find((card) => card.node === node);
  }

  clicked(event) {
    const card = this.cardAt(event);
    if (!card) return;
    this.here = card.place;
    if (event.shiftKey) this.pickRange(this.anchor, card.place);
    else if (event.ctrlKey || event.metaKey || event.target.closest(".tick")) this.toggle(card.place);
    else if (this.picked.size) this.toggle(card.place);
    else this.open(card.id);
    this.render();
  }

  toggle(place) {
    const id = queue.ids[place];
    if (id === undefined) return;
    if (!this.picked.delete(id)) this.picked.add(id);
    this.anchor = place;
    this.tell();
    this.render();
  }

  pickRange(from, to) {
    for (let k = Math.min(from, to); k <= Math.max(from, to); k += 1) this.picked.add(queue.ids[k]);
    this.tell();
    this.render();
  }

  pickAll() { if (queue.ids.length) this.pickRange(0, Math.min(queue.ids.length, 10_000) - 1); }

  pickNone() { this.picked.clear(); this.tell(); this.render(); }

  tell() {
    $("picked").hidden = !this.picked.size;
    $("picked-count").textContent = `${this.picked.size.toLocaleString("en")} selected`;
  }

  // Moves the marked card, by the arrows and their like.
  move(key, shift) {
    const page = Math.max(1, Math.floor(this.view / this.rowHigh)) * this.columns;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity }[key];
    if (by === undefined) return false;
    const to = Math.max(0, Math.min(queue.ids.length - 1, this.here + by));
    if (shift) this.pickRange(this.here, to);
    this.jump(to);
    return true;
  }

  jump(place) {
    if (!(place >= 0)) return;
    this.here = place;
    const top = Math.floor(place / this.columns) * this.rowHigh;
    if (top < this.top) this.scrollTo(top);
    else if (top + this.rowHigh > this.top + this.view) this.scrollTo(top + this.rowHigh + GAP - this.view);
    this.render();
    post("/api/prepare", { ids: [...queue.ids.slice(place, place + 8)] }).catch(() => {});
  }
}
