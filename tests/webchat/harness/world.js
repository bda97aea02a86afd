// What every file of tests has: a gateway with its bot, a web site, a browser.

import { after, afterEach, before } from 'node:test';

import { Browser } from './browser.js';
import { Chat } from './chat.js';
import { Gateway } from './gateway.js';
import { Site } from './site.js';

/** Sets them up for the tests of the calling file, and ends them after its last one. */
export function world() {
  const world = {
    /** @type {Gateway} */ gateway: undefined,
    /** @type {Site} */ site: undefined,
    /** @type {Browser} */ browser: undefined,

    /** A page with a chat of its own that is connected. */
    async chat(t, options = {}) {
      const page = await (await world.browser.window(t)).newPage();
      if (options.clock) await page.clock.install();
      return Chat.open(page, world.site.url());
    },

    /** A page with DirectLineJS and no user interface. */
    async bare(t) {
      const page = await (await world.browser.window(t)).newPage();
      await page.goto(world.site.url('/bare'));
      return page;
    },
  };
  before(async () => {
    world.gateway = await Gateway.start();
    world.site = await Site.start(world.gateway);
    world.browser = await Browser.start();
  });
  afterEach((t) => {
    if (process.env.TURNWIRE_LOG) t.diagnostic(world.gateway.log);
  });
  after(async () => {
    await world.browser?.stop();
    await world.site?.stop();
    await world.gateway?.stop();
  });
  return world;
}
