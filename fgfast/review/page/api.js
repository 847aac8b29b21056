// Requests to the server. A server that is gone is asked again until it is back.
import { problem } from "./elements.js";

export class ApiError extends Error {
  constructor(status, sentence) { super(sentence); this.status = status; }
}

const pause = (ms) => new Promise((go) => setTimeout(go, ms));
let waiting = 0;

async function once(path, options) {
  const answer = await fetch(path, { credentials: "same-origin", ...options });
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new ApiError(answer.status, content.error || `the server answered ${answer.status}`);
  return content;
}

// Asks until the server answers, unless the caller gave up (signal); its refusals are ApiErrors.
async function ask(path, options = {}) {
  for (let n = 0, mine = false; ; n += 1) {
    try {
      const content = await once(path, options);
      if (mine) waiting -= 1;
      if (!waiting) problem("gone", "");
      return content;
    } catch (error) {
      if (error instanceof ApiError || error.name === "AbortError") {
        if (mine) waiting -= 1;
        if (!waiting) problem("gone", "");
        if (error.status === 401) problem("door", error.message);
        throw error;
      }
      if (!mine) { waiting += 1; mine = true; }
      problem("gone", "The server does not answer. What you decide is kept here and sent when it is back.");
      await pause(Math.min(300 * 2 ** n, 5000));
    }
  }
}

export const get = (path, signal) => ask(path, { signal });

export const post = (path, content, signal) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content), signal });

export const imageAddress = (item, kind, side) =>
  `/api/items/${item.id}/image?kind=${kind}&side=${side}&v=${encodeURIComponent(item.stamp)}`;

// Returns the numbers in base64 of little-endian uint32.
export function words(text) {
  const bytes = octets(text);
  return new Uint32Array(bytes.buffer, 0, bytes.length >> 2);
}

export function octets(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let k = 0; k < raw.length; k += 1) bytes[k] = raw.charCodeAt(k);
  return bytes;
}

export function base64(numbers) {
  const bytes = new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength);
  let text = "";
  for (let k = 0; k < bytes.length; k += 32768) text += String.fromCharCode(...bytes.subarray(k, k + 32768));
  return btoa(text);
}
