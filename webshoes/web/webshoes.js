/// <reference path="./webshoes.d.ts" />
// The client for browsers and Node: speaks the protocol of docs/wire.md. Settings and types are in webshoes.d.ts.
//
//   Client          requests by tid: each ends with a reply or an error, whatever becomes of the connection
//     │             subscriptions by uid: each resumes at its cursor on every new connection
//     ├─ Subscription   the cursor of one event and its listeners; knows nothing of connections
//     └─ Connection     one WebSocket, from the attempt to its end; finds out whether it still lives

(() => {
  'use strict';

  const { WebShoes: present } = globalThis;
  if (typeof present === 'function' && 'base' in present) return;

  // Close codes (RFC 6455 section 7.4).
  const CLOSE = { normal: 1000, abnormal: 1006, tooBig: 1009, tryLater: 1013, login: 4401 };
  // Close codes after which the client does not come back: the code of the calls that waited, and the reason.
  const REFUSALS = /** @type {Map<number, [number, string]>} */ (new Map([
    [1008, [403, 'The server refuses this client; its log says why']],
    [CLOSE.login, [401, 'The server wants a login: log in, then call WebShoes() again']],
    [4403, [403, 'The server does not let this user in']],
  ]));

  // Refusals that pass: a subscription that got one is asked for again.
  const PASSING = [408, 429, 503, 504];
  // The answer to a call that was cancelled.
  const CANCELLED = 499;

  // Bytes that the slowest line carries in a millisecond. A line that carries less may be taken for dead.
  const SLOWEST_LINE = 8;
  // A ping follows after so many bytes; its pong tells that they have arrived.
  const PING_EVERY = 8192;
  // Subscriptions in one frame: what the server's limit `max_batch` allows by default.
  const BATCH = 100;
  // Milliseconds. A server that accepts and closes has not earned quick attempts; one that stays this long has.
  const PROVEN_AFTER = 5000;
  // Milliseconds. The longest delay before an attempt to reach a machine nearby, which is restarted often.
  const MAX_DELAY_NEARBY = 3000;
  // The longest time that setTimeout can hold: with more it fires at once.
  const MAX_TIMEOUT = 2 ** 31 - 1;

  // Loopback, private and link-local addresses (RFC 1918, 3927, 4193, 4291) and names (RFC 6761, 6762).
  const NEARBY = [
    /^(127|10|192\.168|172\.(1[6-9]|2\d|3[01])|169\.254|0\.0\.0)\.[\d.]+$/,
    /^\[(::1?\]|f[cd][\da-f]{2}:|fe[89ab][\da-f]:)/,
    /^\[::ffff:(7f[\da-f]{2}|a[\da-f]{2}|c0a8|ac1[\da-f]|a9fe):/,  // the addresses of the first line, within IPv6
    /^localhost\.?$|\.local(host)?\.?$/,
  ];

  const EVENTS = /** @type {const} */ (['open', 'close', 'state', 'message', 'error', 'warning']);

  /** @type {Required<WebShoes.Settings>} */
  const DEFAULTS = {
    url: '/',
    token: '',
    protocols: ['webshoes'],
    cb: (type, data) => { if (type === 'error') console.error(data); else if (type === 'warning') console.warn(data); },
    cmd: 'cmd', q: 'q', evt: 'evt', rep: 'r',
    timeout: 30000, maxPending: 1000,
    minDelay: 500, maxDelay: 20000,
    pingAfter: 25000, deadAfter: 10000,
  };

  const NO_SIGNAL = /** @type {AbortSignal | null} */ (null);
  const REQUEST_DEFAULTS = { timeout: 0, retry: false, queue: true, signal: NO_SIGNAL };
  const EVENT_DEFAULTS = { since: /** @type {WebShoes.Since | null} */ (null), signal: NO_SIGNAL };

  /**
   * The defaults with what was given in their place. `what` is the function that was called, for the errors.
   *
   * @template {object} T @param {string} what @param {Partial<T> | undefined} given @param {T} defaults @returns {T}
   */
  const merge = (what, given, defaults) => {
    const all = /** @type {any} */ ({ ...defaults });
    for (const [key, value] of Object.entries(given || {})) {
      if (!(key in all)) throw new TypeError(`${what}: no setting '${key}', only ${Object.keys(all).join(', ')}`);
      if (value === undefined) continue;
      const kind = typeof all[key];
      const isRight = typeof value === kind && (kind !== 'number' || value > 0);
      if (!isRight && !(key === 'token' && (value === null || typeof value === 'function'))) {
        throw new TypeError(`${what}: setting '${key}' (${kind}, if a number above 0) cannot be ${value}`);
      }
      all[key] = value;
    }
    return all;
  };

  /** The address of the WebSocket at a URL, which may be relative to the page. @param {string} url */
  const address = url => {
    const page = globalThis.location?.href;
    let found;
    try {
      found = new URL(url, page?.startsWith('blob:') ? undefined : page);
      found.protocol = found.protocol.replace('http', 'ws');
    } catch { /* `found` stays undefined */ }
    if (found && /^wss?:$/.test(found.protocol)) return found;
    throw new TypeError(`WebShoes: no WebSocket can be at '${url}'; give { url: 'ws://host:port' }`);
  };

  /** The folder that a script came from, if a server can be there. @param {string | undefined} script */
  const folder = script => (/^https?:/.test(script || '') ? new URL('.', script).href : undefined);

  /**
   * For JSON.stringify: convert what it would send as `{}`, or refuse it. A BigInt it refuses without the place.
   *
   * @param {string} key @param {any} value @returns {any}
   */
  const toJSON = (key, value) => {
    if (typeof value !== 'bigint' && (typeof value !== 'object' || value === null || Array.isArray(value))) return value;
    if (value instanceof Set) return [...value];
    if (ArrayBuffer.isView(value) && !(value instanceof DataView)) return Array.from(/** @type {any} */ (value));
    if (value instanceof Map && [...value.keys()].every(it => /string|number/.test(typeof it))) {
      return Object.fromEntries(value);
    }
    const kind = Object.prototype.toString.call(value).slice(8, -1);
    const isEmpty = kind !== 'Object' && !Object.keys(value).length && typeof (value.valueOf?.() ?? value) === 'object';
    if (!isEmpty && kind !== 'BigInt') return value;
    const where = key && `'${key}': `;
    throw new TypeError(`${where}${kind} cannot be JSON; send an object with text keys, an array, a number or a text`);
  };

  /** Report an error as the page's own. @param {unknown} error */
  const report = error => (typeof reportError === 'function' ? reportError(error) : console.error(error));

  /** Call a function of the page. An error in it disturbs nothing here. @param {Function} fn @param {unknown[]} args */
  const run = (fn, ...args) => {
    try {
      fn(...args);
    } catch (error) {
      report(error);
    }
  };

  /** An error reply of the server, or one made here because none can come. @implements {WebShoes.Failure} */
  class Failure extends Error {
    name = 'WebShoesError';

    /** @param {WebShoes.ErrorReply} reply @param {string} [event] the event whose subscription failed */
    constructor(reply, event) {
      super(reply.error);
      this.code = reply.code;
      this.reply = reply;
      this.event = event;
    }
  }

  /** @typedef {{ callback: (data: WebShoes.Push) => void, isNewHistory: boolean }} Listener */

  /**
   * One subscription, which outlives connections. Every version up to its cursor was delivered, or declared as skipped.
   *
   * The server begins one version before the newest, which it pushes at once. The answer sets the cursor to that same
   * place: if the connection is lost before that push, the next one resumes there, and what was triggered in between
   * follows. The server tells only once that a new history began, and that push may be lost with its connection. So
   * each listener remembers whether it still has to be told.
   */
  class Subscription {
    isPending = false;  // asked for on this connection, and not answered
    isInBatch = false;  // ... in one frame with others
    isRefused = false;
    refusals = 0;  // in a row, that pass
    timer = /** @type {any} */ (undefined);
    listeners = /** @type {Set<Listener>} */ (new Set());
    #last = /** @type {string | undefined} */ (undefined);  // the message of the newest version

    /** @param {string} name @param {string} uid @param {WebShoes.Since | null} since */
    constructor(name, uid, since) {
      this.name = name;
      this.uid = uid;
      this.isShared = !since;
      this.cursor = since ? { ...since } : undefined;
    }

    /** Add a listener; one that comes late gets the newest value. @param {(data: WebShoes.Push) => void} callback */
    add(callback) {
      const listener = { callback, isNewHistory: false };
      this.listeners.add(listener);
      const last = this.#last;
      if (last) queueMicrotask(() => this.listeners.has(listener) && run(callback, this.#version(last)));
      return listener;
    }

    /** Take the position that the server answers with. @param {WebShoes.Frame} position */
    answered({ ver, epoch }) {
      const { cursor } = this;
      this.refusals = 0;
      if (cursor && cursor.epoch === undefined) {
        cursor.epoch = epoch;
      } else if (!cursor || cursor.epoch !== epoch || cursor.ver > ver) {
        for (const listener of this.listeners) listener.isNewHistory = cursor !== undefined;
        this.cursor = { ver: Math.max(ver - 1, 0), epoch };
        this.#last = undefined;
      }
    }

    /** Deliver a push, unless it was delivered before. @param {WebShoes.Push} push @param {string} text */
    pushed(push, text) {
      const { ver, epoch = this.cursor?.epoch } = push;
      if (ver === undefined) {  // to this client alone: no version of the event
        this.#deliver(() => JSON.parse(text));
        return;
      }
      const cursor = this.cursor || { ver: ver - 1, epoch };
      const isNew = epoch !== cursor.epoch;
      if (!isNew && ver <= cursor.ver) return;
      this.cursor = { ver, epoch };
      this.#last = text;
      this.#deliver(listener => {
        const data = this.#version(text);
        if (isNew || listener.isNewHistory) data.epoch = epoch;
        else if (ver > cursor.ver + 1) data.from = cursor.ver + 1;
        listener.isNewHistory = false;
        return data;
      });
    }

    /** A version for a listener that was not told of others. Each has its own copy. @param {string} text */
    #version(text) {
      const { from, epoch, ...data } = /** @type {WebShoes.Push} */ (JSON.parse(text));
      return /** @type {WebShoes.Push} */ (data);
    }

    /** @param {(listener: Listener) => WebShoes.Push} make */
    #deliver(make) {
      // A callback may add others, which get this version by themselves, and remove others, which get no more.
      for (const listener of [...this.listeners]) {
        if (this.listeners.has(listener)) run(listener.callback, make(listener));
      }
    }
  }

  /**
   * One WebSocket. It is pinged when nothing was heard for `pingAfter`, and is dead when nothing is heard for
   * `deadAfter` more. Pings, pongs and all else wait behind messages that are on their way: so the time that these need
   * on a slow line comes before `deadAfter`.
   *
   * @typedef {{ opened: () => void, received: (frame: WebShoes.Frame, text: string) => void,
   *   failed: (error: Failure) => void, lost: (code: number, reason: string) => void }} Handlers
   */
  class Connection {
    openedAt = 0;
    isHeard = false;
    #isOver = false;
    #isPinged = false;  // a ping waits for a sign of life
    #timer = /** @type {any} */ (undefined);
    #heardAt = 0;
    #sent = 0;  // bytes
    #pingedBytes = 0;  // `#sent` at the last ping
    #looked = { sent: 0, drained: 0 };  // bytes when `#hasDrained` was asked last
    #sentBy = 0;  // when all that was sent has arrived, even on the slowest line
    #comingBy = 0;  // when a message that the server announced has arrived, even on the slowest line
    #socket;
    #settings;
    #handlers;

    /** @param {string[]} protocols @param {Required<WebShoes.Settings>} settings @param {Handlers} handlers */
    constructor(protocols, settings, handlers) {
      const { url, deadAfter } = settings;
      this.#settings = settings;
      this.#handlers = handlers;
      this.#socket = new WebSocket(url, protocols);
      this.#socket.onopen = () => this.#opened();
      this.#socket.onmessage = ({ data }) => this.#received(String(data));
      this.#socket.onclose = ({ code, reason }) => this.#end(code, reason);
      // An error of the package `ws` that nobody handles ends the process. After a failed attempt, the WebSocket of
      // Node 22 has no 'close'. Once it was open, 'close' follows everywhere.
      this.#socket.onerror = error => {
        if (!this.openedAt) this.#end(CLOSE.abnormal, /** @type {any} */ (error).message || 'no connection');
      };
      this.#next(deadAfter, () => this.#end(CLOSE.abnormal, `not open after ${deadAfter} ms`));
    }

    /** Whether a message may still be on its way, here or there, that others wait behind. */
    get isBusy() {
      return performance.now() < Math.max(this.#sentBy, this.#comingBy);
    }

    /** Whether the server has kept this connection for some time. */
    get isProven() {
      return this.isHeard && performance.now() - this.openedAt > PROVEN_AFTER;
    }

    /** Send a message; returns the number of its bytes. @param {string} text */
    send(text) {
      const size = this.#transmit(text);
      if (this.#sent - this.#pingedBytes >= PING_EVERY) this.#transmitPing();
      return size;
    }

    /** Ask for a sign of life; without one, the connection ends. */
    ping() {
      if (this.#isPinged || this.#isOver) return;
      this.#isPinged = true;
      this.#transmitPing();
      this.#hasDrained();
      this.#expect();
    }

    /** End it; nothing is told from now on. */
    close() {
      this.#isOver = true;
      clearTimeout(this.#timer);
      this.#socket.close();
    }

    /** @param {string} text */
    #transmit(text) {
      const size = new TextEncoder().encode(text).length;
      // What is sent while the socket closes is lost, as it may be just before; a browser would also log an error.
      if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(text);
      this.#sent += size;
      this.#sentBy = Math.max(this.#sentBy, performance.now()) + size / SLOWEST_LINE;
      return size;
    }

    #transmitPing() {
      this.#transmit(JSON.stringify({ ping: this.#sent }));
      this.#pingedBytes = this.#sent;
    }

    #opened() {
      if (this.#isOver) return;
      this.openedAt = this.#heardAt = performance.now();
      this.#watch();
      this.#handlers.opened();
    }

    /** @param {string} text */
    #received(text) {
      if (this.#isOver) return;
      this.#heardAt = performance.now();
      this.#comingBy = 0;
      this.isHeard = true;
      if (this.#isPinged) this.#watch();
      let frame;
      try {
        frame = Object(JSON.parse(text));
      } catch (error) {
        this.#handlers.failed(new Failure({ error: `The server sent no JSON: ${error}`, code: 400 }));
        return;
      }
      if (!('t' in frame)) this.#controlled(frame);
      this.#handlers.received(frame, text);
    }

    /** Take what the server tells of the line: bytes that have arrived there, or that come next. @param {any} frame */
    #controlled({ pong, coming }) {
      if (typeof pong === 'number') this.#sentBy = this.#heardAt + (this.#sent - pong) / SLOWEST_LINE;
      if (typeof coming === 'number') this.#comingBy = this.#heardAt + coming / SLOWEST_LINE;
    }

    #watch() {
      this.#isPinged = false;
      const { pingAfter } = this.#settings;
      const silence = performance.now() - this.#heardAt;
      if (silence < pingAfter) this.#next(pingAfter - silence, () => this.#watch());
      else this.ping();
    }

    /** Wait for a message to come, or for the buffer to fall. */
    #expect() {
      const { deadAfter } = this.#settings;
      const now = performance.now();
      this.#next(Math.max(this.#sentBy, this.#comingBy, now) - now + deadAfter, () => {
        if (this.#hasDrained()) this.#expect();
        else this.#end(CLOSE.abnormal, `no answer to a ping in ${deadAfter} ms`);
      });
    }

    /**
     * Whether a part of what was in the buffer when this was asked last has left it, and a part has not. What has left
     * it whole does not count: it fits into the buffers of the operating system, even if the line is dead.
     */
    #hasDrained() {
      const drained = this.#sent - this.#socket.bufferedAmount;
      const { sent, drained: before } = this.#looked;
      this.#looked = { sent: this.#sent, drained };
      return before < drained && drained < sent;
    }

    /** @param {number} delay @param {() => void} step */
    #next(delay, step) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(step, Math.min(delay, MAX_TIMEOUT));
    }

    /** @param {number} code @param {string} reason */
    #end(code, reason) {
      if (this.#isOver) return;
      this.close();
      this.#handlers.lost(code, reason);
    }
  }

  /**
   * A call until its end. `connection` is the last one that it was sent on.
   *
   * @typedef {{ tid: WebShoes.Tid, text: string, retry: boolean, queue: boolean, connection?: Connection,
   *   resolve: (reply: WebShoes.Reply) => void, reject: (error: unknown) => void }} Request
   */

  /** @implements {WebShoes.Client} */
  class Client {
    #settings;
    #state = /** @type {WebShoes.State} */ ('connecting');
    #connection = /** @type {Connection | undefined} */ (undefined);
    #retryTimer = /** @type {any} */ (undefined);
    #ending = { code: 503, error: 'The client is closed' };  // what is asked for once it is closed
    #attempt = 0;  // its number tells whether a token comes too late
    #failures = 0;  // attempts in a row that failed
    #token = /** @type {string | null | undefined} */ (undefined);
    #refusal = /** @type {{ token?: string | null, reason: string } | undefined} */ (undefined);
    #isAccepted = false;
    #lastId = 0;
    #batch = BATCH;  // subscriptions in one frame
    #biggest = { tid: /** @type {WebShoes.Tid} */ (''), size: 0 };  // of the requests sent on this connection
    #requests = /** @type {Map<WebShoes.Tid, Request>} */ (new Map());
    #cancelled = /** @type {Set<WebShoes.Tid>} */ (new Set());
    #subscriptions = /** @type {Map<unknown, Subscription>} */ (new Map());
    // By the tid that asks for them; `null` for an `off`, whose answer means nothing.
    #unanswered = /** @type {Map<WebShoes.Tid, Subscription | null>} */ (new Map());
    #listeners = /** @type {Record<string, Set<{ fn: Function }>>} */ ({});
    #pageEvents = new AbortController();

    /** @param {WebShoes.Settings | undefined} settings @param {string} url where the server is if they do not tell */
    constructor(settings, url) {
      const all = merge('WebShoes', settings, { ...DEFAULTS, url });
      const found = address(all.url);
      all.url = found.href;
      all.rep = all.rep || 'r';  // where a result that cannot be merged stands
      if (!settings?.maxDelay && NEARBY.some(it => it.test(found.hostname))) all.maxDelay = MAX_DELAY_NEARBY;
      this.#settings = all;
      const types = settings?.cb ? EVENTS : /** @type {const} */ (['error', 'warning']);
      for (const type of types) this.on(type, /** @type {any} */ (all.cb).bind(null, type));
      this.#connect();
      for (const type of ['online', 'visibilitychange', 'pageshow']) {
        globalThis.addEventListener?.(type, this.#returned, { signal: this.#pageEvents.signal });
      }
    }

    get state() {
      return this.#state;
    }

    /** @param {any} message @param {any} [callback] @param {any} [options] @param {any} [fn] @returns {Promise<any>} */
    msg(message, callback, options, fn) {
      if (typeof message === 'string') {
        const reply = this.msg(this.#command(callback, options));
        reply.then(this.#shown(message, fn), error => this.#tell('error', () => error));
        return reply;
      }
      const reply = this.#request(message, options);
      if (callback) {
        reply.then(
          frame => run(callback, frame),
          error => run(callback, error?.reply || { error: String(error?.message ?? error), code: 400 }),
        );
      }
      return reply;
    }

    /** @param {string} cmd @param {object} [args] @param {WebShoes.RequestOptions} [options] @returns {Promise<any>} */
    async call(cmd, args, options) {
      return this.#value(await this.#request(this.#command(cmd, args), options));
    }

    /** @param {string} name @param {any} callback @param {any} [options] @param {any} [fn] @returns {WebShoes.Off} */
    onEvent(name, callback, options, fn) {
      if (typeof callback === 'string') return this.onEvent(callback, this.#shown(name, fn));
      if (typeof callback !== 'function') throw new TypeError('onEvent(name, callback): the callback is no function');
      const { since, signal } = merge('onEvent', options, EVENT_DEFAULTS);
      const subscription = (since ? undefined : this.#shared(name)) || new Subscription(name, this.#newId('u'), since);
      const isAsked = this.#subscriptions.has(subscription.uid) && !subscription.isRefused;
      const listener = subscription.add(callback);
      const off = () => {
        signal?.removeEventListener('abort', off);
        if (subscription.listeners.delete(listener) && !subscription.listeners.size) this.#unsubscribe(subscription);
      };
      if (signal?.aborted) subscription.listeners.delete(listener);
      else if (!isAsked) this.#subscribe([subscription]);
      signal?.addEventListener('abort', off);
      const position = { get: () => subscription.cursor && { ...subscription.cursor } };
      return /** @type {WebShoes.Off} */ (Object.defineProperty(off, 'position', position));
    }

    /** @param {keyof WebShoes.Events} type @param {Function} fn */
    on(type, fn) {
      if (!EVENTS.includes(type)) throw new TypeError(`on: no event '${type}', only ${EVENTS.join(', ')}`);
      if (typeof fn !== 'function') throw new TypeError(`on('${type}', fn): fn is no function`);
      const listeners = this.#listeners[type] ||= new Set();
      const listener = { fn };
      listeners.add(listener);
      return () => void listeners.delete(listener);
    }

    close() {
      if (this.#state !== 'closed') this.#finish(CLOSE.normal, 'close() was called');
    }

    // --- requests ---

    /** Send a message now, or when there is a connection. @param {any} message @param {any} [options] */
    async #request(message, options) {
      if (Object(message) !== message || Array.isArray(message)) throw new TypeError('A message is { cmd, q }');
      const all = merge('msg', options, { ...REQUEST_DEFAULTS, timeout: this.#settings.timeout });
      const tid = message.tid ?? this.#newId('w');
      if (typeof tid !== 'string' && typeof tid !== 'number') throw new TypeError('A tid is a text or a number');
      const text = JSON.stringify({ ...message, tid }, toJSON);
      if (this.#requests.has(tid)) throw new TypeError(`A request with tid '${tid}' waits already`);
      this.#check(all, tid);
      return this.#settled(tid, text, all);
    }

    /** Throw the reason why a request cannot be made now. @param {typeof REQUEST_DEFAULTS} options @param {any} tid */
    #check({ signal, queue }, tid) {
      const { maxPending } = this.#settings;
      if (signal?.aborted) throw signal.reason;
      if (this.#state === 'closed') throw new Failure({ ...this.#ending, tid });
      if (!queue && this.#state !== 'open') {
        throw new Failure({ error: 'Not connected; it was not sent', code: 503, tid });
      }
      if (this.#requests.size >= maxPending) {
        throw new Failure({ error: `${maxPending} requests wait already: await some first`, code: 429, tid });
      }
    }

    /** @param {WebShoes.Tid} tid @param {string} text @param {typeof REQUEST_DEFAULTS} options */
    #settled(tid, text, { timeout, retry, queue, signal }) {
      return new Promise((resolve, reject) => {
        const settle = (/** @type {(outcome: any) => void} */ how) => (/** @type {any} */ outcome) => {
          clearTimeout(timer);
          signal?.removeEventListener('abort', abort);
          this.#requests.delete(tid);
          how(outcome);
        };
        const request = { tid, text, retry: retry && queue, queue, resolve: settle(resolve), reject: settle(reject) };
        const giveUp = (/** @type {unknown} */ reason) => {
          request.reject(reason);
          this.#cancel(request);
        };
        const abort = () => giveUp(signal?.reason);
        // The time in which a message is on its way that this one waits behind does not count.
        const late = () => {
          if (timeout === Infinity || this.#connection?.isBusy) timer = startTimer();
          else giveUp(new Failure({ error: `No reply within ${timeout} ms`, code: 408, tid }));
        };
        const startTimer = () => setTimeout(late, Math.min(timeout, MAX_TIMEOUT));
        let timer = startTimer();
        signal?.addEventListener('abort', abort);
        this.#requests.set(tid, request);
        if (this.#state === 'open' && (!queue || !this.#isHolding)) this.#send(request);
      });
    }

    /** @param {Request} request */
    #send(request) {
      const { tid, text } = request;
      request.connection = this.#connection;
      const size = this.#connection?.send(text) || 0;
      if (size > this.#biggest.size) this.#biggest = { tid, size };
    }

    /** Send the requests that were not sent on this connection. */
    #sendWaiting() {
      for (const request of this.#requests.values()) if (request.connection !== this.#connection) this.#send(request);
    }

    /** Have the server stop a call that nobody waits for any more. @param {Request} request */
    #cancel({ tid, connection }) {
      if (this.#state !== 'open' || connection !== this.#connection) return;
      this.#cancelled.add(tid);
      this.#connection?.send(JSON.stringify({ cancel: tid }));
    }

    /** @param {string} cmd @param {object | null} [args] */
    #command(cmd, args) {
      const { cmd: field, q } = this.#settings;
      if (/function|symbol/.test(typeof args)) throw new TypeError(`call(cmd, args): args cannot be a ${typeof args}`);
      if (q) return { [field]: cmd, [q]: args ?? {} };
      const values = toJSON('', args ?? {});
      if (Object(values) !== values || Array.isArray(values) || field in values) {
        throw new TypeError(`call(cmd, args): args is an object without '${field}', as q is '' and it is the message`);
      }
      return { ...values, [field]: cmd };
    }

    /** The result, or the whole of a frame that it was merged into. @param {WebShoes.Frame} frame */
    #value(frame) {
      const { rep } = this.#settings;
      return rep in frame ? frame[rep] : frame;
    }

    /** A callback of webshoes 1.0, made while its element is there. @param {string} id @param {Function} [callback] */
    #shown(id, callback) {
      return (/** @type {WebShoes.Frame} */ frame) => {
        if (callback && document.querySelector(id)) run(callback, this.#value(frame));
      };
    }

    /** An id that nothing else has. @param {string} prefix */
    #newId(prefix) {
      let id;
      do id = `${prefix}${++this.#lastId}`; while (this.#requests.has(id));
      return id;
    }

    // --- subscriptions ---

    /** The subscription that all callbacks of an event share which ask for no position. @param {string} name */
    #shared(name) {
      return [...this.#subscriptions.values()].find(it => it.isShared && it.name === name);
    }

    /** Ask for subscriptions now; without a connection, the next one will. @param {Subscription[]} subscriptions */
    #subscribe(subscriptions) {
      const messages = subscriptions.map(subscription => {
        const { name, uid, cursor, timer } = subscription;
        const tid = this.#newId('s');
        clearTimeout(timer);
        subscription.isRefused = false;
        this.#subscriptions.set(uid, subscription);
        if (this.#state === 'open') {
          subscription.isPending = true;
          subscription.isInBatch = this.#batch > 1 && subscriptions.length > 1;
          this.#unanswered.set(tid, subscription);
        }
        return { [this.#settings.evt]: name, uid, since: cursor, tid };
      });
      if (this.#state === 'open') this.#sendInBatches(messages);
      if (this.#state === 'closed') {
        for (const { name } of subscriptions) this.#failed(name, this.#ending);
      }
    }

    /** @param {object[]} messages */
    #sendInBatches(messages) {
      for (let start = 0; start < messages.length; start += this.#batch) {
        const batch = messages.slice(start, start + this.#batch);
        this.#connection?.send(JSON.stringify(batch.length > 1 ? batch : batch[0]));
      }
    }

    /** @param {Subscription} subscription @param {WebShoes.Frame} frame @param {boolean} isError */
    #answered(subscription, frame, isError) {
      subscription.isPending = false;
      subscription.isRefused = isError;
      if (!subscription.listeners.size) this.#unsubscribe(subscription);
      else if (!isError) subscription.answered(this.#value(frame));
      else if (frame.code === 400 && subscription.isInBatch) this.#askAlone(subscription);
      else if (PASSING.includes(frame.code)) this.#askLater(subscription, /** @type {WebShoes.ErrorReply} */ (frame));
      else this.#failed(subscription.name, /** @type {WebShoes.ErrorReply} */ (frame));
    }

    /** Ask again: the server may take smaller batches only. @param {Subscription} subscription */
    #askAlone(subscription) {
      this.#batch = 1;
      this.#subscribe([subscription]);
    }

    /** @param {Subscription} subscription @param {WebShoes.ErrorReply} refusal */
    #askLater(subscription, refusal) {
      const { name } = subscription;
      const delay = this.#backoff(subscription.refusals++);
      subscription.timer = setTimeout(() => this.#subscribe([subscription]), delay);
      const error = `Not subscribed to '${name}' yet: ${refusal.error}; asked again in ${Math.round(delay)} ms`;
      this.#tell('warning', () => new Failure({ ...refusal, error }, name));
    }

    /** @param {string} name @param {WebShoes.ErrorReply} refusal */
    #failed(name, refusal) {
      const error = `Not subscribed to '${name}': ${refusal.error}`;
      this.#tell('error', () => new Failure({ ...refusal, error }, name));
    }

    /**
     * End a subscription that nobody listens to. One that the server has not answered stays until it does: an `off` that
     * comes before might be too early. Who listens again meanwhile has that same subscription.
     *
     * @param {Subscription} subscription
     */
    #unsubscribe({ name, uid, timer, isPending, isRefused }) {
      if (isPending) return;
      clearTimeout(timer);
      this.#subscriptions.delete(uid);
      if (this.#state !== 'open' || isRefused) return;
      const tid = this.#newId('s');
      this.#unanswered.set(tid, null);
      this.#connection?.send(JSON.stringify({ [this.#settings.evt]: name, uid, off: true, tid }));
    }

    // --- what the server sends ---

    /** @param {WebShoes.Frame} frame @param {string} text */
    #received(frame, text) {
      this.#accept();
      this.#tell('message', () => JSON.parse(text));
      const { rep, evt } = this.#settings;
      const { tid } = frame;
      const isError = typeof frame.error === 'string' && typeof frame.code === 'number' && !(rep in frame);
      const request = this.#requests.get(tid);
      const subscription = this.#unanswered.get(tid);
      if (this.#unanswered.delete(tid)) {
        if (subscription) this.#answered(subscription, frame, isError);
      } else if (request) {
        if (isError) request.reject(new Failure(/** @type {WebShoes.ErrorReply} */ (frame)));
        else request.resolve(/** @type {WebShoes.Reply} */ (frame));
      } else if (this.#cancelled.delete(tid) || ('tid' in frame && !isError)) {
        if (frame.code === CANCELLED) return;
        this.#tell('warning', () => new Failure({ code: 408, ...frame, error: 'Late reply' }));
      } else if (isError) {
        this.#tell('error', () => new Failure(/** @type {WebShoes.ErrorReply} */ (frame)));
      } else if (evt in frame) {
        this.#pushed(frame, text);
      }
    }

    /** The first message of a connection shows that the login was accepted. */
    #accept() {
      if (this.#isAccepted) return;
      this.#isAccepted = true;
      this.#refusal = undefined;
      this.#sendWaiting();
    }

    /** Without `uid` a push is for all who listen to that event. @param {WebShoes.Push} push @param {string} text */
    #pushed(push, text) {
      const { uid, [this.#settings.evt]: name } = push;
      const targets = uid === undefined ? [...this.#subscriptions.values()] : [this.#subscriptions.get(uid)];
      for (const subscription of targets) if (subscription?.name === name) subscription?.pushed(push, text);
    }

    // --- the connection ---

    #connect() {
      this.#disconnect();
      const attempt = this.#attempt;
      const { token } = this.#settings;
      if (typeof token !== 'function') {
        this.#open(token);
        return;
      }
      Promise.resolve().then(token).then(
        found => { if (attempt === this.#attempt) this.#openAnew(found); },
        error => { if (attempt === this.#attempt) this.#hasNoToken(error); },
      );
    }

    /** @param {string | null | undefined} token */
    #open(token) {
      const { protocols } = this.#settings;
      this.#token = token;
      this.#connection = new Connection(token ? [...protocols, token] : protocols, this.#settings, {
        opened: () => this.#opened(),
        received: (frame, text) => this.#received(frame, text),
        failed: error => this.#tell('error', () => error),
        lost: (code, reason) => this.#lost(code, reason),
      });
    }

    /** Connect with the token that the page gave this time. @param {string | null | undefined} token */
    #openAnew(token) {
      const refusal = this.#refusal;
      if (refusal && (!token || token === refusal.token)) {
        this.#finish(CLOSE.login, refusal.reason);
        return;
      }
      try {
        this.#open(token);
      } catch (error) {  // it cannot be a subprotocol
        this.#hasNoToken(error);
      }
    }

    /** @param {unknown} error */
    #hasNoToken(error) {
      this.#tell('error', () => new Failure({ error: `The setting 'token' failed: ${error}`, code: 401 }));
      if (this.#refusal) this.#finish(CLOSE.login, this.#refusal.reason);
      else this.#lost(CLOSE.abnormal, 'no token');
    }

    #opened() {
      this.#state = 'open';
      this.#subscribe([...this.#subscriptions.values()]);
      if (this.#isHolding) this.#connection?.ping();
      else this.#sendWaiting();
      this.#tell('open', () => undefined);
      this.#tellState('open');
    }

    /**
     * Whether requests wait until something is heard: a connection whose token may be refused opens first, and what is
     * sent on it would be lost. Whether the server carried it out would not be known.
     */
    get #isHolding() {
      return typeof this.#settings.token === 'function' && !this.#isAccepted;
    }

    /** The connection is gone, or was none. @param {number} code @param {string} reason */
    #lost(code, reason) {
      const asksAgain = code === CLOSE.login && typeof this.#settings.token === 'function' && !this.#refusal;
      if (REFUSALS.has(code) && !asksAgain) {
        this.#finish(code, reason);
        return;
      }
      if (asksAgain) this.#refusal = { token: this.#token, reason };
      const retryIn = this.#delay(code);
      const before = this.#state;
      this.#interrupt(code, reason);
      this.#disconnect();
      this.#state = 'connecting';
      this.#retryTimer = setTimeout(() => this.#connect(), Math.min(retryIn, MAX_TIMEOUT));
      this.#tell('close', () => ({ code, reason, retryIn }));
      if (before !== 'connecting') this.#tellState('connecting');
    }

    /** End the requests that do not wait for the next connection. @param {number} code @param {string} reason */
    #interrupt(code, reason) {
      const { tid: biggest, size } = this.#biggest;
      for (const request of [...this.#requests.values()]) {
        const { tid, queue, retry, connection } = request;
        if (code === CLOSE.tooBig && tid === biggest && connection === this.#connection) {
          request.reject(new Failure({ error: `A message of ${size} bytes is too big for the server`, code: 413, tid }));
        } else if (!queue || (connection && !retry)) {
          this.#abandon(request, { error: `Connection lost before the reply (${code} ${reason})`, code: 503 });
        }
      }
    }

    /** End for good. @param {number} code @param {string} reason */
    #finish(code, reason) {
      const refusal = REFUSALS.get(code);
      if (refusal) this.#ending = { code: refusal[0], error: `${refusal[1]} (${code} ${reason})` };
      this.#disconnect();
      this.#state = 'closed';
      this.#pageEvents.abort();
      this.#subscriptions.clear();
      for (const request of [...this.#requests.values()]) {
        this.#abandon(request, this.#ending);
      }
      this.#tell('close', () => ({ code, reason, retryIn: null }));
      this.#tell('state', () => 'closed');
      if (refusal) this.#tell('error', () => new Failure({ ...this.#ending, code }));
    }

    /** End a request that gets no reply any more. @param {Request} request @param {WebShoes.ErrorReply} reply */
    #abandon({ tid, connection, reject }, { error, code }) {
      const fate = connection ? 'whether it was carried out is not known' : 'it was not sent';
      reject(new Failure({ error: `${error}; ${fate}`, code, tid }));
    }

    /** Let go of a connection, of an attempt to make one, and of all that was to be on it. */
    #disconnect() {
      this.#attempt++;
      this.#connection?.close();
      this.#connection = undefined;
      clearTimeout(this.#retryTimer);
      this.#retryTimer = undefined;
      this.#isAccepted = false;
      this.#biggest = { tid: '', size: 0 };
      this.#cancelled.clear();
      this.#unanswered.clear();
      for (const subscription of [...this.#subscriptions.values()]) {
        clearTimeout(subscription.timer);
        subscription.isPending = false;
        if (!subscription.listeners.size) this.#subscriptions.delete(subscription.uid);
      }
    }

    /** Milliseconds to the next attempt. @param {number} code why the connection ended */
    #delay(code) {
      if (this.#connection?.isProven) this.#failures = 0;
      if (code === CLOSE.tryLater) return this.#settings.maxDelay * (1 + Math.random());
      return this.#backoff(this.#failures++);
    }

    /** Full jitter: a random time up to a ceiling that doubles. @param {number} failures */
    #backoff(failures) {
      const { minDelay, maxDelay } = this.#settings;
      return Math.min(maxDelay, minDelay * 2 ** failures) * Math.random();
    }

    // The page is seen again, or has a network again, maybe another one: what was open may be dead, and an attempt that
    // waits need not wait. Only another network can have stalled an attempt that is under way.
    #returned = (/** @type {Event} */ { type }) => {
      if (globalThis.document?.visibilityState === 'hidden' && type !== 'online') return;
      this.#failures = 0;
      if (this.#state === 'open') this.#connection?.ping();
      else if (this.#retryTimer || (this.#connection && type === 'online')) this.#connect();
    };

    /** Tell of a state, unless the page has closed the client meanwhile. @param {WebShoes.State} state */
    #tellState(state) {
      if (this.#state === state) this.#tell('state', () => state);
    }

    /** @template {keyof WebShoes.Events} T @param {T} type @param {() => WebShoes.Events[T]} make for each listener anew */
    #tell(type, make) {
      const listeners = this.#listeners[type] || [];
      for (const listener of [...listeners]) if (this.#listeners[type].has(listener)) run(listener.fn, make());
    }
  }

  /** @param {WebShoes.Settings} [settings] @returns {WebShoes.Client} */
  function WebShoes(settings) {
    return new Client(settings, WebShoes.base || DEFAULTS.url);
  }
  // The folder of the script; a module has no `currentScript`, so webshoes.mjs tells its own.
  WebShoes.base = folder(/** @type {HTMLScriptElement | null} */ (globalThis.document?.currentScript)?.src);

  globalThis.WebShoes = WebShoes;
})();
