// The web site that the chat is on: another origin than the gateway, with a backend that has the secret.

import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { once } from 'node:events';
import { join } from 'node:path';

const FOLDER = join(import.meta.dirname, '..');
const PAGES = join(FOLDER, 'site');
const PACKAGES = join(FOLDER, 'node_modules');

const FILES = new Map([
  ['/', [join(PAGES, 'chat.html'), 'text/html; charset=utf-8']],
  ['/chat.js', [join(PAGES, 'chat.js'), 'text/javascript']],
  ['/bare', [join(PAGES, 'bare.html'), 'text/html; charset=utf-8']],
  ['/bare.js', [join(PAGES, 'bare.js'), 'text/javascript']],
  ['/webchat.js', [join(PACKAGES, 'botframework-webchat/dist/webchat.js'), 'text/javascript']],
  ['/directline.js', [join(PACKAGES, 'botframework-directlinejs/dist/directline.js'), 'text/javascript']],
]);

export class Site {
  #server;

  static async start(gateway) {
    const site = new Site();
    site.#server = createServer((request, response) => {
      answer(gateway, request, response).catch((error) => {
        response.writeHead(500, { 'content-type': 'text/plain' }).end(String(error));
      });
    });
    site.#server.listen(0, '127.0.0.1');
    await once(site.#server, 'listening');
    return site;
  }

  /** The site under a name of this machine; `page` is its path and query. */
  url(page = '/', host = 'localhost') {
    return `http://${host}:${this.#server.address().port}${page}`;
  }

  async stop() {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

async function answer(gateway, request, response) {
  const { pathname } = new URL(request.url, 'http://site');
  if (request.method === 'POST' && pathname === '/token') {
    const json = JSON.stringify({ domain: gateway.domain, ...(await gateway.token()) });
    response.writeHead(200, { 'content-type': 'application/json' }).end(json);
    return;
  }
  const [file, type] = FILES.get(pathname) ?? [];
  if (!file) {
    response.writeHead(pathname === '/favicon.ico' ? 204 : 404).end();
    return;
  }
  response.writeHead(200, { 'content-type': type }).end(await readFile(file));
}
