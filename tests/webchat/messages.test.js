// Saying something, and reading the answer.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { screenshot } from './harness/browser.js';
import { until } from './harness/waiting.js';
import { world } from './harness/world.js';

const it = world();

test('a message is marked as sent, and its answer is shown', async (t) => {
  const chat = await it.chat(t);
  await chat.say('hello');
  await chat.reads('bot: welcome, Ana', 'ana: hello', 'bot: echo: hello');
  await chat.isAllSent();
  const [mine] = (await chat.activities()).filter((activity) => activity.from.role === 'user');
  assert.match(mine.id, /\|\d{7}$/);
  assert.equal(await chat.page.getByText('Send failed').count(), 0);
});

test('messages that are said at once are shown in the order they were said', async (t) => {
  const chat = await it.chat(t);
  const words = ['one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight'];
  for (const word of words) await chat.say(word);
  const answers = words.map((word) => `bot: echo: ${word}`);
  await until('every message is answered', async () => {
    const lines = await chat.transcript();
    return answers.every((answer) => lines.includes(answer));
  });
  await chat.isAllSent();
  const lines = await chat.transcript();
  assert.equal(lines.length, 1 + 2 * words.length);
  const of = (who) => lines.filter((line) => line.startsWith(`${who}: `));
  assert.deepEqual(of('ana'), words.map((word) => `ana: ${word}`));
  assert.deepEqual(of('bot'), ['bot: welcome, Ana', ...answers]);
  for (const word of words) {
    assert.ok(lines.indexOf(`ana: ${word}`) < lines.indexOf(`bot: echo: ${word}`), word);
  }
  // What is shown is what is kept.
  const { conversationId } = await chat.session();
  const kept = (await it.gateway.history(conversationId)).map((activity) => activity.text);
  assert.deepEqual(kept, lines.map((line) => line.slice('ana: '.length)));
});

test('a typing indicator is shown until the answer comes', async (t) => {
  const chat = await it.chat(t);
  const indicator = chat.page.locator('.webchat__typing-indicator');
  await chat.say('typing');
  await indicator.waitFor({ state: 'visible' });
  await screenshot(t, chat.page, 'meanwhile');
  await chat.reads('bot: welcome, Ana', 'ana: typing', 'bot: thought about it');
  await indicator.waitFor({ state: 'detached' });
});

test('a streamed reply grows in one bubble and ends as one message', async (t) => {
  const chat = await it.chat(t);
  const whole = 'A streamed reply grows while you read it, piece by piece, and ends as one message.';
  await chat.recordTranscripts();
  await chat.say('stream');
  await chat.text('A streamed reply grows').first().waitFor();
  await screenshot(t, chat.page, 'meanwhile');
  await chat.reads('bot: welcome, Ana', 'ana: stream', `bot: ${whole}`);

  const seen = await chat.recordedTranscripts();
  const replies = seen.map((lines) => lines.slice(2)).filter((lines) => lines.length > 0);
  assert.ok(replies.every((lines) => lines.length === 1), JSON.stringify(replies));
  const texts = replies.map(([line]) => line.slice('bot: '.length));
  assert.ok(texts.length >= 3, `it grew: ${JSON.stringify(texts)}`);
  for (const [index, text] of texts.entries()) {
    assert.ok(whole.startsWith(text), text);
    assert.ok(text.length >= (texts[index - 1]?.length ?? 0), JSON.stringify(texts));
  }

  // Whoever comes later has the message, and not its pieces.
  await chat.reload();
  await chat.reads('bot: welcome, Ana', 'ana: stream', `bot: ${whole}`);
});

test('a reply that breaks off stays to be read, says so, and is not kept', async (t) => {
  const chat = await it.chat(t);
  await chat.say('break off');
  await chat.text('A streamed reply').first().waitFor();
  await chat.reads('bot: welcome, Ana', 'ana: break off', 'bot: A streamed reply grows while …');
  await screenshot(t, chat.page, 'broken off');
  // It does not grow any more, and what comes next comes below it.
  await chat.say('hello');
  await chat.reads(
    'bot: welcome, Ana',
    'ana: break off',
    'bot: A streamed reply grows while …',
    'ana: hello',
    'bot: echo: hello',
  );
  await chat.reload();
  await chat.reads('bot: welcome, Ana', 'ana: break off', 'ana: hello', 'bot: echo: hello');
});

test('a reply that the user stops ends with what there was', async (t) => {
  const chat = await it.chat(t);
  await chat.say('stream');
  await chat.text('A streamed reply').first().waitFor();
  await chat.stopReply();
  const replies = async () => {
    const activities = await chat.activities();
    return activities.filter(({ from, type }) => from.role === 'bot' && type === 'message');
  };
  await until('it has ended', async () => (await replies()).length === 2);
  const [, last] = await replies();
  assert.equal(last.channelData.streamType, 'final');
  assert.ok(!last.text.endsWith('one message.'), last.text);
  await chat.reads('bot: welcome, Ana', 'ana: stream', `bot: ${last.text.trim()}`);
});

test('that the user types is not kept', async (t) => {
  const chat = await it.chat(t);
  await chat.posts({ type: 'typing' });
  await chat.say('hello');
  await chat.reads('bot: welcome, Ana', 'ana: hello', 'bot: echo: hello');
  const { conversationId } = await chat.session();
  const kept = await it.gateway.history(conversationId);
  assert.deepEqual(kept.map((activity) => activity.type), ['message', 'message', 'message']);
});
