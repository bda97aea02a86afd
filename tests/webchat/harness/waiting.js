// Waiting for a condition, with an end to it.

import { setTimeout as pause } from 'node:timers/promises';

const AGAIN_MS = 50;
/** Much more than anything takes on a machine that is not busy. */
export const PATIENCE_MS = 30_000;

/**
 * Resolves to what `condition` gives once that is truthy. A condition that throws does not hold yet.
 *
 * @param {string} what is waited for, said in the error
 * @param {() => any} condition may be asynchronous
 * @param {{ within?: number }} options `within`: milliseconds, default `PATIENCE_MS`
 */
export async function until(what, condition, { within = PATIENCE_MS } = {}) {
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
export async function soon(what, promise, within = PATIENCE_MS) {
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
