// Headless Chromium, kept on this machine.

import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { chromium } from 'playwright-core';

import { PATIENCE_MS } from './waiting.js';

const ARTIFACTS = join(import.meta.dirname, '../artifacts');
const PROGRAMS = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser'];
const OURS = /^(localhost|127\.0\.0\.1|([a-z-]+\.)?localhost)$/;

const ARGUMENTS = [
  // Every other name is unknown, also to what the browser asks for by itself.
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE *.localhost, EXCLUDE 127.0.0.1',
  '--disable-dev-shm-usage',
  // Chromium has no sandbox for the super-user.
  ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
];

export class Browser {
  #chromium;

  static async start() {
    const browser = new Browser();
    const executablePath = PROGRAMS.find((path) => path && existsSync(path));
    if (!executablePath) throw new Error('chromium is missing: apt-get install chromium');
    browser.#chromium = await chromium.launch({ executablePath, args: ARGUMENTS, timeout: 60_000 });
    return browser;
  }

  async stop() {
    await this.#chromium.close();
  }

  /**
   * Opens a window with storage of its own. When the test is over a screenshot of each of its pages
   * is kept, and the test has failed if a page threw an error or asked for anything elsewhere.
   */
  async window(t) {
    const context = await this.#chromium.newContext({ viewport: { width: 480, height: 760 } });
    context.setDefaultTimeout(PATIENCE_MS);
    const wrongs = [];
    const check = (url) => {
      const { protocol, hostname } = new URL(url);
      if (/^(https?|wss?):$/.test(protocol) && !OURS.test(hostname)) wrongs.push(`asked for ${url}`);
    };
    context.on('request', (request) => check(request.url()));
    context.on('weberror', (error) => wrongs.push(String(error.error()?.stack ?? error.error())));
    context.on('page', (page) => page.on('websocket', (socket) => check(socket.url())));
    t.after(async () => {
      const pages = context.pages();
      for (const [index, page] of pages.entries()) {
        await screenshot(t, page, pages.length > 1 ? `page ${index + 1}` : '');
      }
      await context.close();
      if (wrongs.length > 0) throw new Error(wrongs.join('\n'));
    });
    return context;
  }
}

/** Keeps a picture of a page under the test's name. */
export async function screenshot(t, page, what = '') {
  // Web Chat scrolls smoothly; a user who has scrolled up, or a page without it, is no mistake.
  await page.waitForFunction(isAtEnd, undefined, { timeout: 1_000 }).catch(() => {});
  const name = `${t.name} ${what}`.trim().toLowerCase().replace(/[^a-z0-9]+/g, '-');
  await mkdir(ARTIFACTS, { recursive: true });
  await writeFile(join(ARTIFACTS, `${name}.png`), await page.screenshot());
}

function isAtEnd() {
  const box = document.querySelector('.webchat__basic-transcript__scrollable');
  return !box || box.scrollHeight - box.scrollTop - box.clientHeight < 2;
}
