// Waiting for a condition, with an end to it.

import { setTimeout as pause } from 'node:timers/promises';

const AGAIN_MS = 50;

/**
 * Resolves to what `condition` gives once that is truthy. A condition that throws does not hold yet.
 *
 * @param {string} what is waited for, said in the error
 * @param {() => any} condition may be asynchronous
 * @param {{ within?: number }} options `within`: milliseconds, default 15 s
 */
export async function until(what, condition, { within = 15_000 } = {}) {
  const end = Date.now() + within;
  let last;
  do {
    try {
      const result = await condition();
      if (result) return result;
      last = undefined;
    } catch (error) {
      last = error;
    }
    await pause(AGAIN_MS);
  } while (Date.now() < end);
  throw new Error(`waited ${within} ms in vain: ${what}`, { cause: last });
}

/** Resolves as `promise` does, or fails after `within` milliseconds. */
export async function soon(what, promise, within = 15_000) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${within} ms in vain: ${what}`)), within);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
