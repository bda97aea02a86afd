// The gateway with its data in a folder of its own, and the bot of `clients/rust/examples/cards.rs`.

import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

import { Program } from './processes.js';
import { soon } from './waiting.js';

const BUILT = resolve(process.env.TURNWIRE_BUILT ?? join(import.meta.dirname, '../../../target/debug'));

/** The secrets of the two channels: `brief` gives tokens that live for a minute, the least there is. */
export const SECRETS = { webchat: randomBytes(24).toString('hex'), brief: randomBytes(24).toString('hex') };

export class Gateway {
  #folder;
  #program;
  #bot;

  /** Starts a gateway on a free port, and its bot. */
  static async start() {
    const gateway = new Gateway();
    gateway.#folder = await mkdtemp(join(tmpdir(), 'turnwire-webchat-'));
    await gateway.#run('127.0.0.1:0');
    gateway.#bot = new Program(join(BUILT, 'examples/cards'), [gateway.url, 'cards']);
    return gateway;
  }

  /** Where Direct Line is: what clients take as `domain`. */
  get domain() {
    return `${this.url}/v3/directline`;
  }

  /** Ends the gateway between two instructions, and starts it again on the same data and port. */
  async killAndRestart(meanwhile = async () => {}) {
    await this.#program.end('SIGKILL');
    await meanwhile();
    await this.#run(new URL(this.url).host);
  }

  /** Ends both, and removes the data. */
  async stop() {
    await this.#bot?.end();
    await this.#program?.end();
    await rm(this.#folder, { recursive: true, force: true });
  }

  /** What both printed, for a test that failed. */
  get log() {
    return [...(this.#program?.lines ?? []), ...(this.#bot?.lines ?? [])].join('\n');
  }

  /** A call as a backend makes it; gives status, headers and, where there is one, the JSON body. */
  async call(method, path, { credential = SECRETS.webchat, body, headers = {} } = {}) {
    const answer = await soon(
      `${method} ${path}`,
      fetch(`${this.domain}${path}`, {
        method,
        headers: {
          ...(credential ? { authorization: `Bearer ${credential}` } : {}),
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          ...headers,
        },
        body: body === undefined ? undefined : JSON.stringify(body),
      }),
    );
    const text = await answer.text();
    const isJson = answer.headers.get('content-type')?.includes('json');
    return { status: answer.status, headers: answer.headers, body: isJson ? JSON.parse(text) : text };
  }

  /** A new token, bound to a user, for a conversation of its own that is not started yet. */
  async token({ channel = 'webchat', user = 'dl_ana', name = 'Ana' } = {}) {
    const { status, body } = await this.call('POST', '/tokens/generate', {
      credential: SECRETS[channel],
      body: { user: { id: user, name } },
    });
    if (status !== 200) throw new Error(`no token: ${status} ${JSON.stringify(body)}`);
    return body;
  }

  /** Everything of a conversation that is in its history. */
  async history(conversationId) {
    const activities = [];
    let watermark = '';
    for (;;) {
      const path = `/conversations/${conversationId}/activities?watermark=${encodeURIComponent(watermark)}`;
      const { status, body } = await this.call('GET', path);
      if (status !== 200) throw new Error(`no history: ${status} ${JSON.stringify(body)}`);
      if (body.activities.length === 0) return activities;
      activities.push(...body.activities);
      watermark = body.watermark;
    }
  }

  async #run(listen) {
    const config = join(this.#folder, 'turnwire.toml');
    await writeFile(config, configuration(listen, join(this.#folder, 'data')));
    this.#program = new Program(join(BUILT, 'turnwire'), ['serve', '--config', config]);
    [, this.url] = await this.#program.says(/listening on (http:\S+)/);
  }
}

function configuration(listen, data) {
  const channel = (id, lifetime) => `
[[channels]]
id = "${id}"
kind = "direct_line"
bot = "cards"
secrets_sha256 = ["${createHash('sha256').update(SECRETS[id]).digest('hex')}"]
trusted_origins = ["http://localhost:*", "http://127.0.0.1:*"]
token_lifetime = "${lifetime}"
`;
  return `listen = "${listen}"
data_dir = "${data}"

[[bots]]
id = "cards"
name = "Cards"
${channel('webchat', '30m')}${channel('brief', '1m')}`;
}
