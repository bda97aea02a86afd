// Child processes that end with us, each by its own id.

import { spawn } from 'node:child_process';

import { soon } from './waiting.js';

const KEPT_LINES = 400;
const running = new Set();

process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

/** A program that runs, and the last of what it printed. */
export class Program {
  /** @type {string[]} what it printed, newest last */
  lines = [];
  #child;
  #ended;
  #watchers = new Set();

  constructor(path, args) {
    this.name = path.split('/').at(-1);
    this.#child = spawn(path, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    running.add(this.#child);
    this.#ended = new Promise((resolve) => {
      this.#child.once('error', (error) => this.#heard(`could not be started: ${error.message}`));
      this.#child.once('close', (code, signal) => {
        running.delete(this.#child);
        this.#heard(`ended with ${signal ?? code}`);
        resolve(code);
      });
    });
    for (const stream of [this.#child.stdout, this.#child.stderr]) this.#read(stream);
  }

  /** Resolves to the match of the first line, printed by now or later, that `pattern` finds. */
  async says(pattern) {
    const found = new Promise((resolve, reject) => {
      const look = (line) => {
        const match = line.match(pattern);
        if (match) resolve(match);
        else if (line.startsWith(`${this.name} ended`)) reject(new Error(this.lines.join('\n')));
      };
      this.lines.forEach(look);
      this.#watchers.add(look);
    });
    return soon(`${this.name} says ${pattern}`, found);
  }

  /** Ends the program and waits until it is gone. */
  async end(signal = 'SIGTERM') {
    if (!running.has(this.#child)) return;
    this.#child.kill(signal);
    try {
      await soon(`${this.name} ends at ${signal}`, this.#ended);
    } finally {
      this.#child.kill('SIGKILL');
    }
  }

  #read(stream) {
    let rest = '';
    stream.setEncoding('utf8').on('data', (chunk) => {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop();
      for (const line of lines) this.#heard(line);
    });
  }

  #heard(text) {
    const line = /^(ended|could not)/.test(text) ? `${this.name} ${text}` : text;
    this.lines.push(line);
    if (this.lines.length > KEPT_LINES) this.lines.shift();
    for (const look of this.#watchers) look(line);
  }
}
