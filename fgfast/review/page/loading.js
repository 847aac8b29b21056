// Images and masks of the large view, fetched ahead and kept for a while.
import { get, imageAddress } from "./api.js";
import { decode } from "./masks.js";

const KEPT = 12;
const kept = new Map();

function once(name, make) {
  if (!kept.has(name)) {
    const wait = make();
    wait.catch(() => kept.delete(name));
    kept.set(name, wait);
  } else {
    const wait = kept.get(name);
    kept.delete(name);
    kept.set(name, wait);
  }
  for (const old of kept.keys()) {
    if (kept.size <= 2 * KEPT) break;
    kept.delete(old);
  }
  return kept.get(name);
}

export function image(item, kind, side) {
  const address = imageAddress(item, kind, side);
  return once(address, async () => {
    const made = new Image();
    made.src = address;
    await made.decode();
    return made;
  });
}

// Returns the source, or the result on grey where the source is gone.
export const base = (item, side) => image(item, "source", side).catch(() => image(item, "outline", side));

// Returns the mask, a byte a pixel; all background where there is none yet.
export function mask(item) {
  return once(`mask ${item.id} ${item.stamp}`, async () => {
    const length = item.size[0] * item.size[1];
    try {
      const found = await get(`/api/items/${item.id}/mask?v=${encodeURIComponent(item.stamp)}`);
      return decode(found.runs, length);
    } catch (error) {
      if (error.status !== 404) throw error;
      return new Uint8Array(length);
    }
  });
}

// Returns the side to ask for so that an image is sharp at a scale: steps, so that the cache is of use.
export function sideFor(item, scale) {
  const longer = Math.max(...(item.size ?? [1024, 1024]));
  const wanted = Math.min(longer, longer * scale * (devicePixelRatio || 1));
  return [1024, 2048, 4096].find((side) => side >= wanted) ?? 8192;
}
