// Files that the user sends.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { until } from './harness/waiting.js';
import { world } from './harness/world.js';

const it = world();

test('an uploaded picture is shown, is served back, and reaches the bot whole', async (t) => {
  const chat = await it.chat(t);
  const buffer = await picture(chat.page);
  await chat.upload([{ name: 'picture.png', mimeType: 'image/png', buffer }]);
  await lastLine(chat, `bot: got picture.png (image/png): ${buffer.length} bytes of image/png`);
  await chat.isAllSent();

  const [mine] = (await chat.activities()).filter((activity) => activity.from.role === 'user');
  assert.equal(mine.attachments.length, 1);
  const [{ contentType, contentUrl, name }] = mine.attachments;
  assert.deepEqual([contentType, name], ['image/png', 'picture.png']);
  assert.ok(contentUrl.startsWith(it.gateway.url), contentUrl);
  const { type, bytes } = await served(contentUrl);
  assert.equal(type, 'image/png');
  assert.ok(bytes.equals(buffer), 'the same bytes');

  await isShown(chat.page);
  // A page without the picture in its memory has it from the gateway.
  await chat.reload();
  await lastLine(chat, `bot: got picture.png (image/png): ${buffer.length} bytes of image/png`);
  await isShown(chat.page);
});

test('several files and a text are one message, in the order they were chosen', async (t) => {
  const chat = await it.chat(t);
  const buffer = await picture(chat.page);
  const text = Buffer.from('Grüße aus der Datei\n'.repeat(1_000));
  await chat.upload(
    [
      { name: 'notes.txt', mimeType: 'text/plain', buffer: text },
      { name: 'a picture.png', mimeType: 'image/png', buffer },
    ],
    'look at these',
  );
  const answers = [
    `bot: got notes.txt (text/plain): ${text.length} bytes of text/plain`,
    `bot: got a picture.png (image/png): ${buffer.length} bytes of image/png`,
  ];
  await lastLine(chat, answers[1]);
  assert.deepEqual((await chat.transcript()).slice(-2), answers);
  await chat.isAllSent();
  const mine = (await chat.activities()).filter((activity) => activity.from.role === 'user');
  assert.equal(mine.length, 1);
  assert.equal(mine[0].text, 'look at these');
  const { bytes } = await served(mine[0].attachments[0].contentUrl);
  assert.ok(bytes.equals(text), 'the same bytes');
});

/** What anyone gets who has the URL, and nothing else. */
async function served(url) {
  const answer = await fetch(url);
  assert.equal(answer.status, 200);
  return { type: answer.headers.get('content-type'), bytes: Buffer.from(await answer.arrayBuffer()) };
}

async function lastLine(chat, line) {
  let last;
  await until(`to be read last: ${line}`, async () => {
    last = (await chat.transcript()).at(-1);
    return last === line;
  }).catch((error) => {
    throw new Error(`${error.message}\nbut there is ${last}`, { cause: error });
  });
}

/** Waits until the picture is there, and not the sign of a broken one. */
async function isShown(page) {
  const width = () =>
    page.$eval('.webchat__stacked-layout--from-user img', (picture) => picture.naturalWidth);
  await until('the picture is shown', async () => (await width()) > 0);
}

/** A PNG of a hill before the sky, made by the browser. */
async function picture(page) {
  const url = await page.evaluate(() => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [320, 180];
    const context = canvas.getContext('2d');
    const sky = context.createLinearGradient(0, 0, 0, canvas.height);
    sky.addColorStop(0, '#2b6cb0');
    sky.addColorStop(1, '#fbd38d');
    context.fillStyle = sky;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = '#276749';
    context.ellipse(160, 210, 220, 90, 0, 0, 2 * Math.PI);
    context.fill();
    return canvas.toDataURL('image/png');
  });
  return Buffer.from(url.slice(url.indexOf(',') + 1), 'base64');
}
