// What the page knows: the run's state, the queue in order, and the entries that were fetched.
import { get, octets, words } from "./api.js";
import { setSpace } from "./drafts.js";

const KEPT = 4000; // entries, some 1 KB each
const AT_ONCE = 200; // the server's limit
const EVERY = 4000; // ms between looks at what other tabs decided

export const run = { readonly: true, causes: [], classes: [], splits: [], flags: [], model: { can: [] }, statuses: {} };
export const queue = { ids: new Uint32Array(), doubts: new Uint8Array(), places: new Map(), filters: {} };
export const entries = new Map();
export const events = new EventTarget();
const emit = (name, detail) => events.dispatchEvent(new CustomEvent(name, { detail }));
let last = null, asked = 0;

export async function loadState() {
  Object.assign(run, await get("/api/state"));
  setSpace(`${run.title} ${run.total}`);
  last ??= run.last ?? 0; // later ones are taken in by watch, which would not look at what a newer state skips
  emit("state");
}

let soon = 0;
export function stateSoon() {
  clearTimeout(soon);
  soon = setTimeout(() => loadState().catch(stateSoon), 250);
}

// Fetches the queue of some filters; an answer that a later question overtook is dropped.
export async function loadQueue(filters) {
  const mine = (asked += 1);
  const wanted = new URLSearchParams(Object.entries(filters).filter(([, value]) => value));
  const found = await get(`/api/queue?${wanted}`);
  if (mine !== asked) return;
  queue.ids = words(found.ids);
  queue.doubts = octets(found.doubts);
  queue.filters = filters;
  queue.places = null;
  emit("queue");
}

// Returns where an entry is in the queue, -1 if it is not.
export function place(id) {
  if (!queue.places) {
    queue.places = new Map();
    queue.ids.forEach((one, k) => queue.places.set(one, k));
  }
  return queue.places.get(id) ?? -1;
}

const coming = new Map();
export const fetching = () => coming.size > 0;

// Fetches entries that are not here yet.
export async function fetchEntries(ids) {
  const wanted = ids.filter((id) => !entries.has(id) && !coming.has(id));
  const waits = ids.filter((id) => coming.has(id)).map((id) => coming.get(id));
  for (let k = 0; k < wanted.length; k += AT_ONCE) {
    const some = wanted.slice(k, k + AT_ONCE);
    const wait = get(`/api/items?ids=${some}`).then(keep).finally(() => some.forEach((id) => coming.delete(id)));
    some.forEach((id) => coming.set(id, wait));
    waits.push(wait);
  }
  await Promise.all(waits);
}

export async function entry(id) {
  await fetchEntries([id]);
  return entries.get(id);
}

// Keeps what the server says about entries, and tells those who show them.
export function keep(items) {
  for (const item of items) {
    entries.delete(item.id);
    entries.set(item.id, item);
  }
  for (const id of entries.keys()) {
    if (entries.size <= KEPT) break;
    entries.delete(id);
  }
  if (items.length) emit("items", items.map((item) => item.id));
}

export async function again(ids) {
  for (let k = 0; k < ids.length; k += AT_ONCE) keep(await get(`/api/items?ids=${ids.slice(k, k + AT_ONCE)}`));
}

// Looks for decisions of other tabs and people, as long as the page is seen.
export function watch() {
  setInterval(async () => {
    if (document.hidden) return;
    const found = await get(`/api/changes?since=${last}`).catch(() => null);
    if (!found || found.last === last) return;
    last = found.last;
    const known = found.ids.filter((id) => entries.has(id));
    if (known.length) await again(known);
    stateSoon();
  }, EVERY);
}
