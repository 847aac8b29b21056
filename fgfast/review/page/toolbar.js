// The buttons beside the stage.
import { $, el } from "./elements.js";
import { keyOf, shown } from "./keys.js";
import { run } from "./state.js";

const ICONS = {
  swap: "M3 5h12M3 5l3-3M3 5l3 3M15 13H3m12 0-3-3m3 3-3 3", fit: "M2 6V2h4M12 2h4v4M16 12v4h-4M6 16H2v-4",
  box: "M3 4h12v10H3zM3 4v0M15 14v0", points: "M6 6m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0M13 11v5M10.500 13.500h5", marks: "M2 13c3-6 5 2 8-4s4-4 6-5",
  brush: "M11 3l4 4-6 6H5V9zM3 16h6", eraser: "M7 14l-4-4 7-7 5 5-6 6zM6 7l5 5M7 15h9", lasso: "M9 3c4 0 7 2 7 4s-3 4-7 4-7-2-7-4 3-4 7-4zM5 10c-2 2-1 4 1 5",
  grow: "M9 6v6M6 9h6M9 1v2M9 15v2M1 9h2M15 9h2", shrink: "M6 9h6M9 1v2M9 15v2M1 9h2M15 9h2", holes: "M9 2a7 7 0 1 0 .1 0M9 7a2 2 0 1 0 .1 0",
  largest: "M7 3a5 5 0 1 0 .1 0M15 14a1 1 0 1 0 .1 0", back: "M7 4L3 8l4 4M3 8h8a4 4 0 0 1 0 8H9", again: "M11 4l4 4-4 4M15 8H7a4 4 0 0 0 0 8h2",
};
const NAMES = {
  swap: "Swap", fit: "Fit", box: "Box", points: "Points", marks: "Marks", brush: "Brush", eraser: "Eraser", lasso: "Lasso",
  grow: "Grow", shrink: "Shrink", holes: "Holes", largest: "Largest", back: "Undo", again: "Redo",
};
export const MODEL_TOOLS = { points: "points", marks: "strokes" };

const icon = (path) => {
  const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 18 18");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(space, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
};

// Returns why a tool cannot be used, empty where it can.
export function why(name) {
  if (run.readonly) return "this server only shows";
  const wanted = MODEL_TOOLS[name];
  if (wanted && !run.model.can.includes(wanted)) return run.model.name ? `${run.model.name} takes no ${name}` : "no model runs here";
  return "";
}

export function toolbar(viewer) {
  const button = (name) => {
    const reason = why(name), tool = viewer.tools[name];
    return el("button", {
      type: "button", title: reason || `${NAMES[name]} (${shown(keyOf(name))})`, onclick: () => viewer.act(name), "data-name": name,
      "aria-label": `${NAMES[name]}, key ${shown(keyOf(name))}`, disabled: Boolean(reason) && !["swap", "fit"].includes(name),
      ...(tool ? { "aria-pressed": String(viewer.tool === tool) } : {}),
    }, icon(ICONS[name]), NAMES[name]);
  };
  const names = ["swap", "fit", "-", "box", "points", "marks", "brush", "eraser", "lasso", "-", "grow", "shrink", "holes", "largest", "-", "back", "again"];
  $("tools").replaceChildren(...names.filter((name) => name !== "marks" || !why("marks")).map((name) => (name === "-" ? el("hr") : button(name))));
}
