// A token that is not refreshed. Apart from the rest, because the shortest life of a token is a minute.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { until } from './harness/waiting.js';
import { world } from './harness/world.js';

const it = world();
/** A minute, the 15 s that DirectLineJS waits at most before it reconnects, and something over. */
const A_LIFE_AND_MORE = 100_000;

test('when its token expires a client is told ExpiredToken, and one that comes then fails to connect', async (t) => {
  const page = await it.bare(t);
  const { domain } = it.gateway;
  const { token, conversationId, expires_in } = await it.gateway.token({ channel: 'brief' });
  assert.equal(expires_in, 60);
  const open = (name, options) =>
    page.evaluate(([name, options]) => window.openClient(name, options), [name, { domain, token, ...options }]);
  const comesTo = (name, status) =>
    until(
      `${name} comes to ${status}`,
      () => page.evaluate(([name, status]) => window.clients[name].statuses.at(-1) === status, [name, status]),
      { within: A_LIFE_AND_MORE },
    );

  await open('polling', { webSocket: false });
  await open('socket', {});
  await comesTo('polling', 'Online');
  await comesTo('socket', 'Online');
  await comesTo('polling', 'ExpiredToken');
  await comesTo('socket', 'ExpiredToken');

  const { status, body } = await it.gateway.call('POST', '/tokens/refresh', { credential: token });
  assert.equal(status, 403);
  assert.equal(body.error.code, 'TokenExpired');
  await open('late', { conversationId });
  await comesTo('late', 'FailedToConnect');
});
