// A page with Web Chat, as its user has it: what one can do there, and what one can see.

import { isDeepStrictEqual } from 'node:util';

import { until } from './waiting.js';

const ONLINE = 2;

export class Chat {
  /** Opens the site in a page and waits until the chat is connected. */
  static async open(page, url) {
    const chat = new Chat(page);
    await page.addInitScript(readTranscript);
    await page.goto(url);
    await chat.isOnline();
    return chat;
  }

  #sockets = [];

  constructor(page) {
    this.page = page;
    page.on('websocket', (socket) => this.#sockets.push(socket));
  }

  /** Every WebSocket that the page has opened. */
  sockets() {
    return [...this.#sockets];
  }

  /** Waits until the page is connected, and shows it. */
  async isOnline() {
    await until('the page is online', async () => (await this.statuses()).at(-1) === ONLINE);
    const connecting = this.page.locator('.webchat__connectivityStatus', { hasText: 'Connecting' });
    await connecting.waitFor({ state: 'detached' });
  }

  /** Every connection status of DirectLineJS since the page was loaded, as numbers. */
  statuses() {
    return this.page.evaluate(() => window.chat?.statuses ?? []);
  }

  /** The page's conversation: `domain`, `conversationId`, `token`. */
  session() {
    return this.page.evaluate(() => window.chat.session);
  }

  /** The same conversation in another tab of the same window. */
  async anotherTab() {
    const session = { ...(await this.session()), started: true };
    const url = new URL(this.page.url());
    url.hash = new URLSearchParams({ conversation: JSON.stringify(session) }).toString();
    return Chat.open(await this.page.context().newPage(), url.href);
  }

  async reload() {
    await this.page.reload();
    await this.isOnline();
  }

  async say(text) {
    await this.page.fill('[data-id="webchat-sendbox-input"]', text);
    await this.page.press('[data-id="webchat-sendbox-input"]', 'Enter');
  }

  /** Posts an activity that has no button in Web Chat. */
  async posts(activity) {
    const action = { type: 'DIRECT_LINE/POST_ACTIVITY', meta: { method: 'code' }, payload: { activity } };
    await this.page.evaluate((action) => void window.chat.store.dispatch(action), action);
  }

  /** Stops the reply that grows, as a page would that has a button for it. */
  async stopReply() {
    const isPiece = ({ type, channelData }) => type === 'typing' && channelData?.streamId;
    const { streamId } = (await this.activities()).findLast(isPiece).channelData;
    await this.posts({ type: 'event', name: 'turnwire/stopStreaming', value: { streamId } });
  }

  /** A button of a card, or a suggested action. */
  button(name) {
    return this.#shown().getByRole('button', { name, exact: true });
  }

  /** What is to be read and has `text` in it. */
  text(text) {
    return this.#shown().getByText(text);
  }

  /** A field of a card, by its placeholder. */
  field(placeholder) {
    return this.#shown().getByPlaceholder(placeholder);
  }

  /** An option of a card. */
  choice(name) {
    return this.#shown().getByRole('radio', { name });
  }

  /** Chooses files, as `{ name, mimeType, buffer }`, and sends them, with a text or without. */
  async upload(files, text = '') {
    await this.page.setInputFiles('.webchat__upload-button--file-input', files);
    // Pictures are made small first; what is sent before that goes without them.
    await until('the files are in the send box', () =>
      this.page.evaluate(
        (count) => window.chat.store.getState().sendBoxAttachments.length === count,
        files.length,
      ),
    );
    await this.say(text);
  }

  /** What is to be read, from top to bottom: `ana: hello`, `bot: echo: hello`. */
  transcript() {
    return this.page.evaluate(() => window.transcript());
  }

  /** Keeps what is to be read whenever that changes, from now on. */
  async recordTranscripts() {
    await this.page.evaluate(() => {
      window.transcripts = [];
      const record = () => {
        const lines = window.transcript();
        const last = window.transcripts.at(-1);
        if (JSON.stringify(lines) !== JSON.stringify(last)) window.transcripts.push(lines);
      };
      const options = { subtree: true, childList: true, characterData: true };
      new MutationObserver(record).observe(document.body, options);
    });
  }

  recordedTranscripts() {
    return this.page.evaluate(() => window.transcripts);
  }

  /** Waits until exactly these lines are to be read, in this order; options may come before them. */
  async reads(...lines) {
    const options = typeof lines[0] === 'object' ? lines.shift() : {};
    let last;
    await until('what is to be read', async () => {
      last = await this.transcript();
      return isDeepStrictEqual(last, lines);
    }, options).catch((error) => {
      const shown = (lines) => JSON.stringify(lines, null, 2);
      throw new Error(`${error.message}\nexpected ${shown(lines)}\nbut there is ${shown(last)}`);
    });
  }

  /** Waits until all of the user's messages are marked as sent. */
  async isAllSent() {
    let last;
    await until('everything is sent', async () => {
      last = await this.sendStatuses();
      return last.length > 0 && last.every((status) => status === 'sent');
    }).catch((error) => {
      throw new Error(`${error.message}: ${last}`);
    });
  }

  /** Web Chat's send status of each activity of the user. */
  sendStatuses() {
    return this.page.evaluate(() =>
      window.chat.store
        .getState()
        .activities.filter((activity) => activity.from.role === 'user')
        .map((activity) => activity.channelData['webchat:send-status']),
    );
  }

  /** The activities that Web Chat has, as it has them. */
  activities() {
    return this.page.evaluate(() => window.chat.store.getState().activities);
  }

  // Web Chat says everything a second time for screen readers.
  #shown() {
    return this.page.locator('.webchat__stacked-layout, .webchat__suggested-actions');
  }
}

/** In the page: makes the bubbles, from top to bottom, lines that say who and what. */
function readTranscript() {
  window.transcript = () =>
    [...document.querySelectorAll('.webchat__stacked-layout')].flatMap((row) => {
      const who = row.classList.contains('webchat__stacked-layout--from-user') ? 'ana' : 'bot';
      const bubbles = [...row.querySelectorAll('.webchat__bubble__content')];
      return bubbles.map((bubble) => `${who}: ${bubble.innerText.trim()}`);
    });
}
