// Keys: what each does, and which a person changed.
import { load, store } from "./drafts.js";

// name -> [what it does, keys]
export const ACTIONS = {
  accept: ["Accept", "a"], reject: ["Reject", "r"], later: ["Later", "l"], next: ["Next", "j"], previous: ["Previous", "k"],
  undo: ["Undo the last decision", "u"], undone: ["Go to what was undone", "y"], swap: ["Source, outline, result", "v"], save: ["Save the new mask", "Enter"],
  box: ["Box", "b"], points: ["Points", "p"], brush: ["Brush", "d"], eraser: ["Eraser", "e"], lasso: ["Lasso", "o"], marks: ["Marks for the model", "m"],
  kind: ["Subject or background", "x"], remove: ["Remove the point", "Delete"],
  grow: ["Grow", "g"], shrink: ["Shrink", "s"], holes: ["Fill holes", "f"], largest: ["Largest part", "t"],
  back: ["Undo a stroke", "Ctrl+z"], again: ["Redo a stroke", "Ctrl+y"], reset: ["Drop the draft", "Ctrl+Backspace"],
  thinner: ["Thinner brush", "["], thicker: ["Thicker brush", "]"],
  in: ["Zoom in", "+"], out: ["Zoom out", "-"], fit: ["Whole image", "0"],
  note: ["Note", "n"], select: ["Select", " "], all: ["Select all that are shown", "Ctrl+a"], search: ["Search", "/"],
  help: ["Keys", "?"], close: ["Leave the tool, or close", "Escape"],
};

let changed = {};

export function loadKeys() { changed = load("keys", {}); }
export const keyOf = (name) => changed[name] ?? ACTIONS[name][1];
export const shown = (key) => (key === " " ? "Space" : key === "Escape" ? "Esc" : key.replace(/(^|\+)(.)$/, (all) => all.toUpperCase()));

export function change(name, key) {
  changed = { ...changed, [name]: key };
  if (key === ACTIONS[name][1]) delete changed[name];
  store("keys", changed);
}

export function original() { changed = {}; store("keys", changed); }

export function pressed(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  return (event.ctrlKey || event.metaKey ? "Ctrl+" : "") + (event.altKey ? "Alt+" : "") + key;
}

export function actionOf(event) {
  const key = pressed(event);
  return Object.keys(ACTIONS).find((name) => keyOf(name).toLowerCase() === key.toLowerCase()) ?? null;
}
