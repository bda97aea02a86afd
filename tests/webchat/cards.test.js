// Buttons and forms.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { screenshot } from './harness/browser.js';
import { until } from './harness/waiting.js';
import { world } from './harness/world.js';

const it = world();
const WELCOME = 'bot: welcome, Ana';

test('a suggested action that is clicked is said by the user', async (t) => {
  const chat = await it.chat(t);
  await chat.say('suggest');
  await chat.reads(WELCOME, 'ana: suggest', 'bot: which colour?');
  await chat.button('green').waitFor();
  await screenshot(t, chat.page, 'before');
  await chat.button('green').click();
  await chat.reads(WELCOME, 'ana: suggest', 'bot: which colour?', 'ana: green', 'bot: echo: green');
  assert.equal(await chat.button('blue').count(), 0);
});

test('a button of a hero card that says something says it for the user', async (t) => {
  const chat = await it.chat(t);
  const card = await heroCard(chat);
  await screenshot(t, chat.page, 'before');
  await chat.button('Say hello').click();
  await chat.reads(...card, 'ana: hello from a card', 'bot: echo: hello from a card');
});

test('a button that posts back tells the bot and shows nothing', async (t) => {
  const chat = await it.chat(t);
  const card = await heroCard(chat);
  await chat.button('A tea, quietly').click();
  await chat.reads(...card, 'bot: ordered: a tea');
});

test('a button that sends a message back shows one text and sends another', async (t) => {
  const chat = await it.chat(t);
  const card = await heroCard(chat);
  await chat.button('A large coffee').click();
  await chat.reads(...card, 'ana: A large coffee, please', 'bot: ordered: large coffee');
  const { conversationId } = await chat.session();
  const sent = (await it.gateway.history(conversationId)).at(-2);
  assert.equal(sent.text, 'coffee');
  assert.deepEqual(sent.value, { drink: 'coffee', size: 'large' });
});

test('an Adaptive Card sends what was filled in', async (t) => {
  const chat = await it.chat(t);
  await chat.say('adaptive');
  await chat.field('Drink').fill('lemonade');
  await chat.choice('Large').check();
  await chat.button('Order').click();
  await until('the order is answered', async () => {
    return (await chat.transcript()).at(-1) === 'bot: ordered: large lemonade';
  });
  const { conversationId } = await chat.session();
  const sent = (await it.gateway.history(conversationId)).at(-2);
  assert.deepEqual(sent.value, { drink: 'lemonade', size: 'large' });
});

/** Asks for the card, and gives what is to be read then. */
async function heroCard(chat) {
  await chat.say('hero');
  await chat.button('Say hello').waitFor();
  const lines = await chat.transcript();
  assert.deepEqual(lines.slice(0, 2), [WELCOME, 'ana: hero']);
  assert.equal(lines.length, 3);
  return lines;
}
