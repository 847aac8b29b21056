// What must survive a reload: drafts of masks, decisions that the server has not confirmed, keys, sizes.
let space = "fgfast";

export function setSpace(name) { space = `fgfast ${name}`; }

export function load(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(`${space} ${name}`)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

// Returns whether it is stored; the oldest drafts make room.
export function store(name, value) {
  for (let n = 0; n < 50; n += 1) {
    try {
      localStorage.setItem(`${space} ${name}`, JSON.stringify(value));
      return true;
    } catch {
      if (!dropOldest(name)) return false;
    }
  }
  return false;
}

export function forget(name) {
  try { localStorage.removeItem(`${space} ${name}`); } catch { /* storage is switched off */ }
}

function dropOldest(but) {
  let oldest = null, when = Infinity;
  for (let k = 0; k < localStorage.length; k += 1) {
    const name = localStorage.key(k);
    if (!name.startsWith("fgfast ") || !name.includes(" draft ") || name === `${space} ${but}`) continue;
    const at = JSON.parse(localStorage.getItem(name)).at ?? 0;
    if (at < when) [oldest, when] = [name, at];
  }
  if (oldest) localStorage.removeItem(oldest);
  return oldest !== null;
}
