// A Direct Line 3.0 client: one conversation, kept connected. It knows nothing of the page.

const REQUEST_MS = 20_000;
const UPLOAD_MS = 120_000;
const OPEN_MS = 10_000;
const POLL_MS = 1_000;
const KEEP_ALIVE_MS = 20_000;
const BACKOFF_MIN_MS = 500;
const BACKOFF_MAX_MS = 10_000;
/** A connection that lasted this long was a good one: the next wait is a short one again. */
const STEADY_MS = 5_000;
/** So many sockets that never opened, while requests were answered, and the page asks instead. */
const SOCKETS_TO_TRY = 2;
const DAY_MS = 86_400_000;

/** An answer that is not a success; `status` 0 when there was none. */
export class Failure extends Error {
  constructor(status, message, retryAfterMs = 0) {
    super(message);
    this.status = status;
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether the conversation, or the right to it, is gone for good. */
  get isGone() {
    return this.status === 401 || this.status === 403 || this.status === 404;
  }

  get isRefusal() {
    return this.status >= 400 && this.status < 500 && this.status !== 408 && this.status !== 429;
  }
}

export class DirectLine {
  #base;
  #secret;
  #user;
  #on;
  #session;
  #watermark = "";
  #life = null;
  #wake = null;
  #refresh = 0;
  #neverOpened = 0;
  #everOpened = false;
  #begun;
  #tellBegun;
  #posts = Promise.resolve();

  /**
   * `on` is told what happens:
   * - `state({name, ...})`: `connecting`; `connected` with `by`; `waiting` with `until`, `refused` with `reason`;
   * - `activity(activity)`: one from the stream, in order, maybe again;
   * - `session(session)`: what to keep for `session` of the next page load;
   * - `lost(reason)`: the conversation is gone, and a new one begins.
   */
  constructor({ base, secret, user, session, on }) {
    this.#base = base;
    this.#secret = secret;
    this.#user = user;
    this.#session = session;
    this.#on = on;
    this.#expectSession();
  }

  get conversationId() {
    return this.#session?.conversationId ?? null;
  }

  /** Begins, or begins anew; what was before is left alone. */
  connect() {
    this.#life?.abort();
    this.#life = new AbortController();
    if (this.#session) {
      this.#tellBegun();
      this.#refreshInTime();
    }
    this.#live(this.#life.signal);
  }

  /** Leaves the conversation and begins another. */
  startOver() {
    this.#forget();
    this.connect();
  }

  /** Ends a wait between two attempts. */
  retryNow() {
    this.#wake?.();
  }

  /**
   * Posts one after the other, so that they arrive in the order in which they were typed, and
   * waits for a conversation if there is none yet.
   */
  post(activity, files = []) {
    const posted = this.#posts.then(() => this.#post(activity, files));
    this.#posts = posted.catch(() => {});
    return posted;
  }

  async #post(activity, files) {
    await this.#begun;
    const session = this.#session;
    const path = `conversations/${encodeURIComponent(session.conversationId)}`;
    try {
      if (files.length === 0) {
        return await this.#request("POST", `${path}/activities`, session.token, { json: activity });
      }
      const form = new FormData();
      const part = new Blob([JSON.stringify(activity)], { type: "application/vnd.microsoft.activity" });
      form.append("activity", part, "blob");
      for (const file of files) form.append("file", file, file.name);
      const userId = encodeURIComponent(this.#user.id);
      return await this.#request("POST", `${path}/upload?userId=${userId}`, session.token, { form });
    } catch (failure) {
      if (failure.isGone) this.#doubt(session);
      throw failure;
    }
  }

  /**
   * Asks whether the conversation is still there. A post that is refused does not say so: it may have
   * ended, or not every operation may be served.
   */
  async #doubt(session) {
    const query = `watermark=${encodeURIComponent(this.#watermark)}`;
    const path = `conversations/${encodeURIComponent(session.conversationId)}/activities?${query}`;
    try {
      await this.#request("GET", path, session.token);
    } catch (failure) {
      if (failure.isGone && session === this.#session) this.#lose(failure);
    }
  }

  async #live(signal) {
    let failures = 0;
    let lostAt = -Infinity;
    while (!signal.aborted) {
      const startedAt = performance.now();
      let retryAfterMs = 0;
      this.#on.state({ name: "connecting" });
      const had = this.#session;
      try {
        const streamUrl = await this.#open(signal);
        if (signal.aborted) return;
        await this.#follow(streamUrl, signal);
      } catch (failure) {
        if (signal.aborted) return;
        if (!(failure instanceof Failure)) throw failure;
        retryAfterMs = failure.retryAfterMs;
        if (failure.isGone && had !== null) {
          // A new conversation at once, unless the one before was lost just now, too.
          const soon = startedAt - lostAt < BACKOFF_MAX_MS;
          lostAt = startedAt;
          this.#forget();
          this.#on.lost(reasonOf(failure));
          if (!soon) continue;
        } else if (failure.isRefusal) {
          this.#on.state({ name: "refused", reason: refusal(failure) });
          await new Promise((resolve) => this.#waiting(resolve, signal));
          continue;
        }
      }
      if (signal.aborted) return;
      failures = performance.now() - startedAt > STEADY_MS ? 0 : failures;
      const most = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** failures);
      failures += 1;
      const waitMs = Math.max(retryAfterMs, most * (0.5 + Math.random() / 2));
      this.#on.state({ name: "waiting", until: Date.now() + waitMs });
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, waitMs);
        this.#waiting(() => {
          clearTimeout(timer);
          resolve();
        }, signal);
      });
    }
  }

  #waiting(resolve, signal) {
    this.#wake = resolve;
    signal.addEventListener("abort", resolve, { once: true });
  }

  /** Starts the conversation, or comes back to it; the answer is the stream's URL. */
  async #open(signal) {
    if (this.#session === null) {
      const { token } = await this.#request("POST", "tokens/generate", this.#secret, {
        json: { user: this.#user },
        signal,
      });
      const answer = await this.#request("POST", "conversations", token, {
        json: { user: this.#user, locale: navigator.language },
        signal,
      });
      if (signal.aborted) return null;
      this.#watermark = "";
      this.#keep({ token, ...answer });
      this.#tellBegun();
      return answer.streamUrl;
    }
    const { conversationId, token } = this.#session;
    // With an empty watermark the stream begins at the start of the conversation.
    const query = `watermark=${encodeURIComponent(this.#watermark)}`;
    const path = `conversations/${encodeURIComponent(conversationId)}?${query}`;
    const answer = await this.#request("GET", path, token, { signal });
    if (signal.aborted) return null;
    this.#keep({ token, ...answer });
    return answer.streamUrl;
  }

  /** Hands out what comes, until the connection ends. */
  async #follow(streamUrl, signal) {
    const patience = this.#everOpened ? Infinity : SOCKETS_TO_TRY;
    if (streamUrl && this.#neverOpened < patience) {
      const opened = await this.#listen(streamUrl, signal);
      this.#neverOpened = opened ? 0 : this.#neverOpened + 1;
      this.#everOpened ||= opened;
    } else {
      // One attempt the next time around, in case it was a passing trouble.
      this.#neverOpened = SOCKETS_TO_TRY - 1;
      await this.#poll(signal);
    }
  }

  #listen(streamUrl, signal) {
    return new Promise((resolve) => {
      let opened = false;
      let socket;
      try {
        socket = new WebSocket(streamUrl);
      } catch {
        resolve(false);
        return;
      }
      const close = () => socket.close();
      const late = setTimeout(close, OPEN_MS);
      let alive = 0;
      signal.addEventListener("abort", close, { once: true });
      socket.onopen = () => {
        opened = true;
        clearTimeout(late);
        // A connection that is dead without saying so is found out by writing.
        alive = setInterval(() => socket.send(""), KEEP_ALIVE_MS);
        if (!signal.aborted) this.#on.state({ name: "connected", by: "stream" });
      };
      socket.onmessage = ({ data }) => {
        if (signal.aborted || typeof data !== "string" || data === "") return;
        try {
          this.#take(JSON.parse(data));
        } catch (error) {
          console.error("a frame that cannot be taken", error, data);
        }
      };
      socket.onclose = () => {
        clearTimeout(late);
        clearInterval(alive);
        signal.removeEventListener("abort", close);
        resolve(opened);
      };
    });
  }

  async #poll(signal) {
    while (!signal.aborted) {
      const { conversationId, token } = this.#session;
      const query = `watermark=${encodeURIComponent(this.#watermark)}`;
      const path = `conversations/${encodeURIComponent(conversationId)}/activities?${query}`;
      const set = await this.#request("GET", path, token, { signal });
      if (signal.aborted) return;
      this.#on.state({ name: "connected", by: "polling" });
      this.#take(set);
      if (!set.activities?.length) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  #take({ activities, watermark }) {
    for (const activity of activities ?? []) this.#on.activity(activity);
    // Only now: what was not handed out comes again after a reconnect.
    if (typeof watermark === "string" && watermark !== "") this.#watermark = watermark;
  }

  #keep({ conversationId, token, expires_in: seconds }) {
    const before = this.#session;
    const endsAt = seconds > 0 ? Date.now() + seconds * 1000 : before?.endsAt ?? Date.now() + 1_800_000;
    this.#session = { conversationId: conversationId ?? before?.conversationId, token, endsAt };
    this.#on.session(this.#session);
    this.#refreshInTime();
  }

  /** A new token when two thirds of the time that is left have passed; soon again if that fails. */
  #refreshInTime() {
    clearTimeout(this.#refresh);
    const left = this.#session.endsAt - Date.now();
    const wait = Math.min(Math.max(left * (2 / 3), 1_000), DAY_MS);
    this.#refresh = setTimeout(async () => {
      const session = this.#session;
      try {
        const answer = await this.#request("POST", "tokens/refresh", session.token);
        if (session === this.#session) this.#keep(answer);
      } catch (failure) {
        if (session !== this.#session) return;
        if (failure.isGone) this.#lose(failure);
        else this.#refreshInTime();
      }
    }, wait);
  }

  #lose(failure) {
    this.#forget();
    this.#on.lost(reasonOf(failure));
    this.connect();
  }

  #forget() {
    clearTimeout(this.#refresh);
    if (this.#session !== null) this.#expectSession();
    this.#session = null;
    this.#watermark = "";
    this.#on.session(null);
  }

  #expectSession() {
    this.#begun = new Promise((resolve) => {
      this.#tellBegun = resolve;
    });
  }

  async #request(method, path, credential, { json, form, signal } = {}) {
    const headers = { accept: "application/json", authorization: `Bearer ${credential}` };
    if (json !== undefined) headers["content-type"] = "application/json";
    const timeout = AbortSignal.timeout(form ? UPLOAD_MS : REQUEST_MS);
    let response;
    let body;
    try {
      response = await fetch(`${this.#base}/${path}`, {
        method,
        headers,
        body: form ?? (json === undefined ? undefined : JSON.stringify(json)),
        signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
        cache: "no-store",
        credentials: "omit",
      });
      body = await response.text();
    } catch (error) {
      throw new Failure(0, error.name === "TimeoutError" ? "no answer in time" : "no connection");
    }
    let answer = null;
    try {
      answer = body === "" ? null : JSON.parse(body);
    } catch {
      // Not every refusal is JSON: a proxy may stand in between.
    }
    if (response.ok && answer !== null) return answer;
    const seconds = Number(response.headers.get("retry-after")) || 0;
    const said = answer?.error?.message ?? response.statusText;
    throw new Failure(response.ok ? 502 : response.status, said || "no readable answer", seconds * 1000);
  }
}

function reasonOf(failure) {
  return failure.status === 404
    ? "The gateway does not know this conversation any more."
    : "The token of this conversation is no longer good.";
}

function refusal({ status, message }) {
  if (status === 401 || status === 403) return `The gateway does not accept this secret (${status}: ${message})`;
  if (status === 404) return "This gateway does not serve Direct Line";
  return `The gateway refuses to start a conversation (${status}: ${message})`;
}
