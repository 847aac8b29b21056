// Help with keys that can be changed, and the dialog of two decisions on one entry.
import { decode } from "./masks.js";
import { imageAddress } from "./api.js";
import { DOUBT } from "./card.js";
import { $, el } from "./elements.js";
import { ACTIONS, change, keyOf, original, pressed, shown } from "./keys.js";

export function help() {
  const dialog = $("help"), list = el("div", { className: "keys" });
  const clash = (name) => Object.keys(ACTIONS).some((other) => other !== name && keyOf(other).toLowerCase() === keyOf(name).toLowerCase());
  const fill = () => list.replaceChildren(...Object.entries(ACTIONS).map(([name, [text]]) =>
    el("div", {}, el("span", { textContent: text }),
      el("button", { type: "button", textContent: shown(keyOf(name)), className: clash(name) ? "clash" : "", "aria-label": `${text}: ${shown(keyOf(name))}. Change the key`, onclick: (event) => learn(event.currentTarget, name, fill) }))));
  fill();
  dialog.replaceChildren(
    el("h2", { id: "help-title", textContent: "Keys" }),
    el("p", { className: "soft", textContent: "Click a key to change it. Arrows move through the gallery; with a tool they move the crosshair (Shift: ten pixels), and Space puts a point, a corner or the brush down. 1 to 9 choose a proposed mask or box; Shift and 1 to 4 a cause. Dragging without a tool pans, the wheel zooms; Alt while drawing swaps subject and background." }),
    list,
    el("p", { className: "soft", textContent: `${DOUBT} The most doubtful results are flagged, and "left" counts the flagged ones that nobody has decided; the others follow in the same order.` }),
    el("div", { className: "row" },
      el("button", { type: "button", textContent: "Original keys", onclick: () => { original(); fill(); } }),
      el("button", { type: "button", textContent: "Close", autofocus: true, onclick: () => dialog.close() })));
  dialog.showModal();
}

function learn(button, name, fill) {
  button.textContent = "press a key";
  const stop = () => { removeEventListener("keydown", take, true); fill(); };
  const take = (event) => {
    if (["Shift", "Control", "Alt", "Meta"].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    change(name, pressed(event));
    stop();
  };
  addEventListener("keydown", take, true);
  button.addEventListener("blur", stop, { once: true });
}

const VERDICTS = { accept: "Accepted", reject: "Rejected", mask: "A new mask", undo: "Undone" };

// Shows both decisions; returns "mine" or "theirs".
export function conflict(item, found, mine) {
  const dialog = $("conflict");
  const column = (title, verdict, by, runs) => el("div", {}, el("h3", { textContent: title }), drawing(item, found.size, runs),
    el("p", { textContent: VERDICTS[verdict] ?? verdict }), el("p", { className: "soft", textContent: by }));
  const now = found.now;
  return new Promise((answer) => {
    const close = (which) => { dialog.close(); answer(which); };
    dialog.oncancel = () => answer("theirs");
    dialog.replaceChildren(
      el("h2", { id: "conflict-title", textContent: "Decided by somebody else meanwhile" }),
      el("p", { className: "soft", textContent: `${item.key}. Nothing is lost: both decisions stay in the history.` }),
      el("div", { className: "both" },
        column("Theirs, in force", now.verdict, `${now.who}, ${when(now.when)}${now.note ? `: ${now.note}` : ""}`, found.theirs),
        column("Yours, not applied", mine.verdict, mine.note ? `you: ${mine.note}` : "you", mine.verdict === "mask" ? found.mine : found.theirs)),
      el("div", { className: "row" },
        el("button", { type: "button", textContent: "Keep theirs", autofocus: true, onclick: () => close("theirs") }),
        el("button", { type: "button", textContent: "Use mine", onclick: () => close("mine") })));
    dialog.showModal();
  });
}

export const when = (text) => (text ? new Date(text).toLocaleString() : "now");

function drawing(item, size, runs) {
  const [height, width] = size ?? [1, 1];
  const by = Math.min(1, 512 / Math.max(height, width));
  const canvas = el("canvas", { width: Math.max(1, Math.round(width * by)), height: Math.max(1, Math.round(height * by)), role: "img", "aria-label": "mask of this decision" });
  const context = canvas.getContext("2d");
  const image = new Image();
  const draw = (shade) => {
    if (shade) context.drawImage(image, 0, 0, canvas.width, canvas.height);
    if (!runs) return;
    const bits = decode(runs, width * height);
    const data = context.getImageData(0, 0, canvas.width, canvas.height);
    for (let y = 0, k = 0; y < canvas.height; y += 1) {
      for (let x = 0; x < canvas.width; x += 1, k += 4) {
        const inside = bits[Math.min(height - 1, Math.floor(y / by)) * width + Math.min(width - 1, Math.floor(x / by))];
        if (!inside) for (let c = 0; c < 3; c += 1) data.data[k + c] = data.data[k + c] * 0.25;
        data.data[k + 3] = 255;
        if (inside && !shade) data.data[k] = data.data[k + 1] = data.data[k + 2] = 235;
      }
    }
    context.putImageData(data, 0, 0);
  };
  image.onload = () => draw(true);
  image.onerror = () => draw(false);
  image.src = imageAddress(item, "source", 512);
  return canvas;
}
