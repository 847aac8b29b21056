// Elements without innerHTML: names of files are text, whatever they hold.

export const $ = (id) => document.getElementById(id);

// Returns an element with properties, attributes (by aria-, data-, role, for) and children.
export function el(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (/^(aria-|data-|role$|for$)/.test(name)) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const plural = (n, word, many = `${word}s`) => `${n.toLocaleString("en")} ${n === 1 ? word : many}`;

let hide = 0;

// Says a sentence to those who see the page and to those who hear it.
export function say(sentence, seen = true) {
  const said = $("said");
  said.textContent = "";
  requestAnimationFrame(() => { said.textContent = sentence; });
  if (!seen) return;
  const toast = $("toast");
  toast.textContent = sentence;
  toast.hidden = false;
  clearTimeout(hide);
  hide = setTimeout(() => { toast.hidden = true; }, 2500 + 40 * sentence.length);
}

const problems = new Map();

// Shows a problem in the banner until it is taken back with an empty sentence.
export function problem(name, sentence) {
  if (sentence) problems.set(name, sentence);
  else problems.delete(name);
  const banner = $("banner");
  const text = [...problems.values()].join(" ");
  if (banner.textContent !== text) banner.textContent = text;
  banner.hidden = !text;
}
