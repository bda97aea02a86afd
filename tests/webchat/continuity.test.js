// A conversation outlives its page, its socket, its token and its gateway.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { screenshot } from './harness/browser.js';
import { until } from './harness/waiting.js';
import { world } from './harness/world.js';

const it = world();
const WELCOME = 'bot: welcome, Ana';

test('a page that is loaded again shows what was said before, once, and goes on', async (t) => {
  const chat = await it.chat(t);
  await chat.say('before');
  await chat.reads(WELCOME, 'ana: before', 'bot: echo: before');
  await chat.isAllSent();
  await chat.reload();
  await chat.reads(WELCOME, 'ana: before', 'bot: echo: before');
  await chat.say('after');
  await chat.reads(WELCOME, 'ana: before', 'bot: echo: before', 'ana: after', 'bot: echo: after');
  await chat.isAllSent();
});

test('a gateway that is killed in mid-conversation loses nothing, and the page comes back by itself', async (t) => {
  const chat = await it.chat(t);
  const { conversationId, token } = await chat.session();
  await chat.say('before');
  const before = [WELCOME, 'ana: before', 'bot: echo: before'];
  await chat.reads(...before);
  const sockets = chat.sockets();

  await it.gateway.killAndRestart(async () => {
    await until('the page has lost its socket', () => sockets.every((socket) => socket.isClosed()));
  });
  // From another device of the same user, while the page is still away.
  const { status } = await it.gateway.call('POST', `/conversations/${conversationId}/activities`, {
    credential: token,
    body: { type: 'message', from: { id: 'dl_ana' }, text: 'meanwhile' },
  });
  assert.equal(status, 200);

  // DirectLineJS waits for 3 to 15 s before it tries again.
  const meanwhile = [...before, 'ana: meanwhile', 'bot: echo: meanwhile'];
  await chat.reads({ within: 45_000 }, ...meanwhile);
  await screenshot(t, chat.page, 'back');
  await chat.say('after');
  const all = [...meanwhile, 'ana: after', 'bot: echo: after'];
  await chat.reads(...all);
  await chat.isAllSent();
  const kept = (await it.gateway.history(conversationId)).map((activity) => activity.text);
  assert.deepEqual(kept, all.map((line) => line.slice('ana: '.length)));
});

test('a token is refreshed before it expires, and the chat goes on with the new one', async (t) => {
  const chat = await it.chat(t, { clock: true });
  const { token } = await chat.session();
  await chat.say('before');
  await chat.reads(WELCOME, 'ana: before', 'bot: echo: before');

  const answered = chat.page.waitForResponse(/\/tokens\/refresh$/);
  await chat.page.clock.fastForward('15:01');
  const refreshed = await (await answered).json();
  assert.notEqual(refreshed.token, token);
  assert.equal(refreshed.conversationId, (await chat.session()).conversationId);

  const posted = chat.page.waitForRequest((request) => request.method() === 'POST' && /\/activities$/.test(request.url()));
  await chat.say('after');
  assert.equal(await (await posted).headerValue('authorization'), `Bearer ${refreshed.token}`);
  await chat.reads(WELCOME, 'ana: before', 'bot: echo: before', 'ana: after', 'bot: echo: after');
  await chat.isAllSent();
});

test('two tabs of one conversation both show everything', async (t) => {
  const one = await it.chat(t);
  await one.say('from the first');
  const first = [WELCOME, 'ana: from the first', 'bot: echo: from the first'];
  await one.reads(...first);
  const other = await one.anotherTab();
  await other.reads(...first);
  await other.say('from the second');
  const second = [...first, 'ana: from the second', 'bot: echo: from the second'];
  await other.reads(...second);
  await one.reads(...second);
  await one.say('and back');
  const all = [...second, 'ana: and back', 'bot: echo: and back'];
  await one.reads(...all);
  await other.reads(...all);
  // Neither has closed the other's stream.
  assert.ok([...one.sockets(), ...other.sockets()].every((socket) => !socket.isClosed()));
});
