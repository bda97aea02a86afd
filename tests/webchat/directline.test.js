// DirectLineJS without Web Chat: what it hears, over either transport.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { until } from './harness/waiting.js';
import { world } from './harness/world.js';

const it = world();

test('polling and the WebSocket give the same activities in the same order', async (t) => {
  const page = await it.bare(t);
  const { domain } = it.gateway;
  const { token, conversationId } = await it.gateway.token();
  await open(page, 'socket', { domain, token });
  await until('welcomed', async () => (await heard(page, 'socket')).length === 1);
  await open(page, 'polling', { domain, token, conversationId, webSocket: false, pollingInterval: 200 });
  const words = ['one', 'hero', 'two', 'suggest', 'stream', 'three'];
  for (const text of words) await say(page, 'socket', text);

  const expected = 1 + 2 * words.length;
  const all = {};
  for (const name of ['socket', 'polling']) {
    all[name] = await until(`${name} hears all`, async () => {
      const activities = await heard(page, name);
      return activities.length >= expected && activities;
    });
    assert.equal(all[name].length, expected);
  }
  assert.deepEqual(all.polling, all.socket);
  assert.deepEqual(await it.gateway.history(conversationId), all.socket);
  const times = all.socket.map((activity) => activity.timestamp);
  assert.deepEqual(times, times.toSorted());
});

test('what is posted again with the same clientActivityID is one activity', async (t) => {
  const page = await it.bare(t);
  const { domain } = it.gateway;
  const { token, conversationId } = await it.gateway.token();
  await open(page, 'client', { domain, token });
  const first = await say(page, 'client', 'once', 'client-1');
  const again = await say(page, 'client', 'once', 'client-1');
  assert.equal(again, first);
  const other = await say(page, 'client', 'once', 'client-2');
  assert.notEqual(other, first);
  await until('both are answered', async () => (await heard(page, 'client')).length >= 5);
  const texts = (await it.gateway.history(conversationId)).map((activity) => activity.text);
  assert.deepEqual(texts.toSorted(), ['echo: once', 'echo: once', 'once', 'once', 'welcome, Ana']);
});

test('a client that says how far it was is given what came after', async (t) => {
  const page = await it.bare(t);
  const { domain } = it.gateway;
  const { token, conversationId } = await it.gateway.token();
  await open(page, 'first', { domain, token });
  await say(page, 'first', 'before');
  await until('answered', async () => (await heard(page, 'first')).length === 3);
  const { body } = await it.gateway.call('GET', `/conversations/${conversationId}/activities`);
  await page.evaluate(() => window.closeClient('first'));

  await open(page, 'second', { domain, token, conversationId, watermark: body.watermark });
  await say(page, 'second', 'after');
  await until('answered', async () => (await heard(page, 'second')).length >= 2);
  const texts = (await heard(page, 'second')).map((activity) => activity.text);
  assert.deepEqual(texts, ['after', 'echo: after']);
});

async function open(page, name, options) {
  await page.evaluate(([name, options]) => window.openClient(name, options), [name, options]);
}

/** What a client heard so far, without what is not kept: typing, and the pieces of streamed replies. */
async function heard(page, name) {
  const activities = await page.evaluate((name) => window.clients[name].activities, name);
  return activities.filter((activity) => activity.type !== 'typing');
}

function say(page, name, text, clientActivityID) {
  const channelData = clientActivityID && { clientActivityID };
  const activity = { type: 'message', from: { id: 'dl_ana' }, text, channelData };
  return page.evaluate(([name, activity]) => window.post(name, activity), [name, activity]);
}
