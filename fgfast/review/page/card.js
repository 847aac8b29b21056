// One card of the gallery. Cards are recycled: a card shows one entry after another.
import { imageAddress } from "./api.js";
import { el } from "./elements.js";

const WORDS = { accept: "✓ accepted", reject: "✕ rejected", mask: "✎ mended" };

export const stateOf = (item) => (item.decision ? item.decision.verdict : item.later ? "later" : "");

// Returns what a card says aloud.
export function spoken(item) {
  const word = { accept: "accepted", reject: "rejected", mask: "mended", later: "later", "": "not decided" }[stateOf(item)];
  const why = item.flags.map((flag) => flag.name).join(", ");
  return `${item.key}, doubt ${doubt(item.doubt)}, ${word}${why ? `, ${why}` : ""}`;
}

// Returns a doubt as the plain number that it is: it orders the results, and is no share of anything.
export function doubt(value) {
  if (value === null || value === undefined) return "unknown";
  return value < 0.001 ? "< 0.001" : value.toFixed(3);
}

export const DOUBT = "Doubt, 0 to 1, orders the results: the higher, the likelier an error. It is no probability: a doubt of 0.05 does not mean that one in twenty is wrong.";

// Returns the doubt that a byte of the queue stands for: 1 is 0.0001 and less, 255 is 1, by the logarithm; 0 is none.
export const doubtOf = (byte) => (byte ? 10 ** ((4 * (byte - 1)) / 254 - 4) : null);

export class Card {
  constructor() {
    this.image = el("img", { alt: "", decoding: "async", fetchPriority: "high", draggable: false });
    this.gone = el("div", { className: "gone", hidden: true });
    this.doubt = el("span", { className: "doubt" });
    this.done = el("span", { className: "done" });
    this.tick = el("span", { className: "tick", textContent: "✓", "aria-hidden": "true" });
    this.name = el("div", { className: "name" });
    this.why = el("div", { className: "why" });
    const well = el("div", { className: "well" }, this.image, this.gone, this.doubt, this.done, this.tick);
    this.node = el("div", { className: "card", role: "option" }, well, this.name, this.why);
    this.image.addEventListener("load", () => { delete this.image.dataset.wait; });
    this.image.addEventListener("error", () => this.fail());
    this.place = -1;
    this.said = {};
  }

  // Shows a place of the queue; the image only when it may be fetched.
  show(place, id, doubtByte, item, kind, side, fetchImage, picked, here) {
    if (this.id !== id) this.clear(id);
    this.place = place;
    this.attribute("aria-selected", picked);
    this.attribute("class", here ? "card here" : "card");
    if (this.item !== item || this.kind !== kind) this.fill(item, doubtByte, kind);
    if (item && fetchImage) this.load(item, kind, side);
  }

  // Sets an attribute where it changed: while scrolling, most have not.
  attribute(name, value) {
    if (this.said[name] === value) return;
    this.said[name] = value;
    this.node.setAttribute(name, String(value));
  }

  clear(id) {
    this.id = id;
    this.item = undefined;
    this.wanted = "";
    this.node.id = `card-${id}`;
    this.image.dataset.wait = "";
    this.image.removeAttribute("src");
    this.gone.hidden = true;
  }

  fill(item, doubtByte, kind) {
    this.item = item;
    this.kind = kind;
    this.doubt.textContent = doubt(item ? item.doubt : doubtOf(doubtByte));
    this.name.textContent = item ? item.key.split("/").pop() : "";
    this.node.title = item ? item.key : "";
    this.why.textContent = item ? item.flags.map((f) => f.name).join(", ") || item.detail || item.class : "";
    const state = item ? stateOf(item) : "";
    this.done.dataset.v = state;
    this.done.textContent = state === "later" ? "◷ later" : WORDS[state] ?? "";
  }

  load(item, kind, side) {
    const address = imageAddress(item, kind, side);
    if (this.wanted === address) return;
    this.wanted = address;
    this.gone.hidden = true;
    this.image.src = address;
  }

  // A source that is gone still has an outline on grey; without a result there is only a sentence.
  fail() {
    if (!this.wanted || !this.item) return;
    const other = imageAddress(this.item, "outline", 256);
    if (this.kind !== "outline" && this.image.getAttribute("src") !== other && this.item.size) {
      this.image.src = other;
      return;
    }
    this.image.dataset.wait = "";
    this.gone.textContent = this.item.problem || this.item.detail || "no image";
    this.gone.hidden = false;
  }
}
