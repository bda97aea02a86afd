// Who may not, and how the client is told.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { until } from './harness/waiting.js';
import { world } from './harness/world.js';

const it = world();

test('a page of an origin that is not trusted is refused', async (t) => {
  const page = await (await it.browser.window(t)).newPage();
  await page.goto(it.site.url('/bare', 'elsewhere.localhost'));
  const { domain } = it.gateway;
  const { token, conversationId } = await it.gateway.token();
  const answered = page.waitForResponse(`${domain}/conversations`);
  await open(page, { domain, token });
  assert.equal((await answered).status(), 403);
  await failsToConnect(page);

  // It can do nothing else either: start, read, or open a stream whose URL it was told.
  const origin = new URL(page.url()).origin;
  const start = (headers) => it.gateway.call('POST', '/conversations', { credential: token, headers });
  assert.equal((await start({ origin })).status, 403);
  const trusted = await start({ origin: new URL(it.site.url()).origin });
  assert.equal(trusted.status, 201);
  assert.equal(trusted.headers.get('access-control-allow-origin'), new URL(it.site.url()).origin);
  const read = await it.gateway.call('GET', `/conversations/${conversationId}/activities`, {
    credential: token,
    headers: { origin },
  });
  assert.equal(read.status, 403);
  assert.equal(await openSocket(page, trusted.body.streamUrl), 'refused');
});

test('a page of a trusted origin is let in', async (t) => {
  const page = await it.bare(t);
  const { token } = await it.gateway.token();
  await open(page, { domain: it.gateway.domain, token });
  await until('online', async () => (await statuses(page)).at(-1) === 'Online');
});

test('with the token of another conversation a client fails to connect', async (t) => {
  const page = await it.bare(t);
  const { token } = await it.gateway.token();
  const { conversationId } = await it.gateway.token();
  await open(page, { domain: it.gateway.domain, token, conversationId });
  await failsToConnect(page);
});

test('a client that goes online with the token of another conversation is told ExpiredToken', async (t) => {
  const page = await it.bare(t);
  const { domain } = it.gateway;
  const { token } = await it.gateway.token();
  const { conversationId, token: itsOwn } = await it.gateway.token();
  const { body } = await it.gateway.call('POST', '/conversations', { credential: itsOwn });
  // With all three it asks nobody before it polls.
  const { streamUrl } = body;
  await open(page, { domain, token, conversationId, streamUrl, webSocket: false });
  await until('it is told', async () => (await statuses(page)).at(-1) === 'ExpiredToken');
  const post = { type: 'message', from: { id: 'dl_ana' }, text: 'not mine' };
  const result = await page.evaluate((post) => window.post('client', post), post);
  assert.equal(result, 'retry');
  assert.ok(!(await it.gateway.history(conversationId)).some(({ text }) => text === post.text));
});

test('with a token that was altered a client fails to connect', async (t) => {
  const page = await it.bare(t);
  const { token } = await it.gateway.token();
  const [head, claims, signature] = token.split('.');
  const changed = { ...JSON.parse(Buffer.from(claims, 'base64url')), user: 'dl_eve' };
  const forged = [head, Buffer.from(JSON.stringify(changed)).toString('base64url'), signature].join('.');
  await open(page, { domain: it.gateway.domain, token: forged });
  await failsToConnect(page);
});

async function open(page, options) {
  await page.evaluate((options) => window.openClient('client', options), options);
}

function statuses(page) {
  return page.evaluate(() => window.clients.client.statuses);
}

/** DirectLineJS says so, and nothing else, to whom starting is refused. */
async function failsToConnect(page) {
  await until('it is told', async () => (await statuses(page)).at(-1) === 'FailedToConnect');
  assert.deepEqual(await statuses(page), ['Uninitialized', 'Connecting', 'FailedToConnect']);
}

/** Opens a stream as a page does that was given its URL by someone else. */
function openSocket(page, url) {
  return page.evaluate(
    (url) =>
      new Promise((resolve) => {
        const socket = new WebSocket(url);
        socket.onopen = () => resolve('opened');
        socket.onerror = () => resolve('refused');
      }),
    url,
  );
}
