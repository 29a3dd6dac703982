/// <reference path="./webshoes.d.ts" />
// The browser client: speaks the wire of docs/wire.md. What can be set, and all types, are in webshoes.d.ts.
//
//   WebShoes() ──► Client ──► one WebSocket at a time, and one timer, for what comes next in its life
//                    ├─ requests by tid        end with a reply or an error, whatever becomes of the socket
//                    └─ subscriptions by uid   resume at their cursors on each new socket

(() => {
  'use strict';

  if (typeof globalThis.WebShoes === 'function') return;

  // What happens in each state, and the state that follows; what is not listed has no effect. Waiting for the next
  // attempt is 'connecting' too.
  /** @type {Record<WebShoes.State, { opened?: WebShoes.State, lost?: WebShoes.State, ended?: WebShoes.State }>} */
  const STATES = {
    connecting: { opened: 'open', lost: 'connecting', ended: 'closed' },
    open: { lost: 'connecting', ended: 'closed' },
    closed: {},
  };

  // Close codes (RFC 6455 section 7.4), and those that mean "do not come back".
  const CLOSE = { normal: 1000, abnormal: 1006, tooBig: 1009, tryLater: 1013 };
  const REFUSALS = new Map([
    [1008, 'The server refuses this client; its log says why'],
    [4401, 'The server wants a login: log in, then call WebShoes() again'],
    [4403, 'The server does not let this user in'],
  ]);

  // Milliseconds. A server that accepts and closes has not earned quick attempts; one that stays this long has.
  const PROVEN_AFTER = 5000;
  // All that setTimeout can hold: with more it fires at once.
  const MAX_TIMEOUT = 2 ** 31 - 1;

  /** @type {Required<WebShoes.Settings>} */
  const DEFAULTS = {
    url: '/',
    protocols: ['webshoes'],
    cb: (type, data) => { if (type === 'error') console.error(data); else if (type === 'warning') console.warn(data); },
    cmd: 'cmd', q: 'q', evt: 'evt', rep: 'r',
    timeout: 30000, maxPending: 1000,
    minDelay: 500, maxDelay: 20000,
    pingAfter: 25000, deadAfter: 10000,
  };

  // The defaults, and what was given over them. Whose they are (`what`) is for the errors.
  /** @template {object} T @param {string} what @param {Partial<T> | undefined} more @param {T} defaults @returns {T} */
  const merged = (what, more, defaults) => {
    const all = /** @type {any} */ ({ ...defaults });
    for (const [key, value] of Object.entries(more || {})) {
      if (!(key in all)) throw new TypeError(`${what}: no setting '${key}', only ${Object.keys(all).join(', ')}`);
      if (value === undefined) continue;
      const kind = typeof all[key];
      const isRight = typeof value === kind && (kind !== 'number' || value > 0);
      if (!isRight) throw new TypeError(`${what}: setting '${key}' (${kind}, if a number above 0) cannot be ${value}`);
      all[key] = value;
    }
    return all;
  };

  /** The address of the WebSocket at a URL that may be relative to the page. @param {string} url */
  const address = url => {
    const found = new URL(url, globalThis.location?.href);
    found.protocol = found.protocol.replace('http', 'ws');
    if (/^wss?:$/.test(found.protocol)) return found.href;
    throw new TypeError(`WebShoes: no WebSocket can be at '${found}'; give { url: 'ws://host:port' }`);
  };

  // Calls what is the page's. An error in it disturbs nothing here, and is reported: a rejection that nobody handles.
  const run = async (/** @type {Function} */ callback, /** @type {unknown[]} */ ...args) => callback(...args);

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

  /**
   * One subscription, which outlives connections. All up to its cursor was delivered, or declared as skipped.
   *
   * The server begins one version before the newest, which it pushes at once. The answer sets the cursor to that same
   * place: if the connection is lost before that push, the next one resumes there, and what was triggered in between
   * follows. A new history is told by the server once; that the callbacks are still to be told is remembered here, as
   * the push that tells it may be lost with its connection.
   */
  class Subscription {
    isRefused = false;
    isNewHistory = false;
    last = /** @type {WebShoes.Push | null} */ (null);
    listeners = /** @type {Set<(data: WebShoes.Push) => void>} */ (new Set());

    /** @param {string} name @param {string} uid @param {WebShoes.Since | null} since */
    constructor(name, uid, since) {
      this.name = name;
      this.uid = uid;
      this.isShared = !since;
      this.cursor = since ? { ...since } : undefined;
    }

    /** Take the position that the server answers with. @param {WebShoes.Frame} position */
    answered({ ver, epoch }) {
      const { cursor } = this;
      if (cursor && cursor.epoch === undefined) {
        cursor.epoch = epoch;
      } else if (!cursor || cursor.epoch !== epoch || cursor.ver > ver) {
        this.isNewHistory = cursor !== undefined;
        this.cursor = { ver: Math.max(ver - 1, 0), epoch };
      }
    }

    /** Deliver a push, unless it was delivered before. @param {WebShoes.Push} push */
    pushed(push) {
      const { ver, epoch = this.cursor?.epoch } = push;
      if (ver === undefined) {
        this.#deliver(push);  // to this client alone: no version of the event
        return;
      }
      const cursor = this.cursor || { ver: ver - 1, epoch };
      if (epoch === cursor.epoch && ver <= cursor.ver) return;
      const data = { ...push };
      delete data.from;
      delete data.epoch;
      if (this.isNewHistory || epoch !== cursor.epoch) data.epoch = epoch;
      else if (ver > cursor.ver + 1) data.from = cursor.ver + 1;
      this.isNewHistory = false;
      this.cursor = { ver, epoch };
      this.last = data;
      this.#deliver(data);
    }

    /** @param {WebShoes.Push} data */
    #deliver(data) {
      // A copy, as callbacks may add others (which get `last` by themselves) and remove others (which get no more).
      for (const listener of [...this.listeners]) if (this.listeners.has(listener)) run(listener, data);
    }
  }

  /** @typedef {{ text: string, retry: boolean, wasSent: boolean, done: (outcome: any) => void }} Request */

  /** @implements {WebShoes.Client} */
  class Client {
    #settings;
    #state = /** @type {WebShoes.State} */ ('connecting');
    #socket = /** @type {WebSocket | undefined} */ (undefined);
    #generation = 0;
    #timer = 0;
    #attempts = 0;
    #openedAt = 0;
    #heardAt = 0;
    #lastId = 0;
    #requests = /** @type {Map<WebShoes.Tid, Request>} */ (new Map());
    #subscriptions = /** @type {Map<unknown, Subscription>} */ (new Map());

    /** @param {WebShoes.Settings} [settings] */
    constructor(settings) {
      this.#settings = merged('WebShoes', settings, DEFAULTS);
      this.#settings.url = address(this.#settings.url);
      this.#settings.rep = this.#settings.rep || 'r';  // where a result that cannot be merged stands
      this.#connect();
      globalThis.addEventListener?.('online', this.#online);
    }

    get state() {
      return this.#state;
    }

    /** @param {any} message @param {any} [callback] @param {any} [options] @param {any} [fn] @returns {Promise<any>} */
    msg(message, callback, options, fn) {
      if (typeof message === 'string') {
        const reply = this.msg(this.#command(callback, options));
        reply.then(this.#shown(message, fn), error => this.#tell('error', error));
        return reply;
      }
      const reply = this.#request(message, options);
      if (callback) reply.then(callback, error => callback(error.reply || { error: error.message, code: 400 }));
      return reply;
    }

    /** @param {string} cmd @param {object} [args] @param {WebShoes.RequestOptions} [options] @returns {Promise<any>} */
    async call(cmd, args, options) {
      return this.#value(await this.#request(this.#command(cmd, args), options));
    }

    /** @param {string} name @param {any} callback @param {any} [options] @param {any} [fn] @returns {() => void} */
    onEvent(name, callback, options, fn) {
      if (typeof callback === 'string') return this.onEvent(callback, this.#shown(name, fn));
      if (typeof callback !== 'function') throw new TypeError('onEvent(name, callback): the callback is no function');
      const { since } = merged('onEvent', options, { since: /** @type {WebShoes.Since | null} */ (null) });
      const shared = since ? null : [...this.#subscriptions.values()].find(it => it.isShared && it.name === name);
      const subscription = shared || new Subscription(name, `u${++this.#lastId}`, since);
      const listener = (/** @type {WebShoes.Push} */ data) => callback(data);
      subscription.listeners.add(listener);
      if (!shared || shared.isRefused) this.#subscribe(subscription);
      if (shared?.last) queueMicrotask(() => shared.listeners.has(listener) && run(listener, shared.last));
      return () => {
        if (subscription.listeners.delete(listener) && !subscription.listeners.size) this.#unsubscribe(subscription);
      };
    }

    close() {
      this.#end('ended', CLOSE.normal, 'close() was called');
    }

    // --- requests ---

    // Sends now or when there is a connection. What is `ours` is let through however many requests wait.
    /** @param {any} message @param {any} [options] @param {boolean} [ours] @returns {Promise<WebShoes.Reply>} */
    async #request(message, options, ours) {
      const { maxPending, timeout: standard } = this.#settings;
      const { timeout, retry } = merged('msg', options, { timeout: standard, retry: false });
      if (Object(message) !== message || Array.isArray(message)) throw new TypeError('A message is { cmd, q }');
      const tid = message.tid ?? `w${++this.#lastId}`;
      const text = JSON.stringify({ ...message, tid });
      if (this.#requests.has(tid)) throw new TypeError(`A request with tid '${tid}' waits already`);
      if (this.#state === 'closed') throw new Failure({ error: 'The client is closed', code: 503, tid });
      if (!ours && this.#requests.size >= maxPending) {
        throw new Failure({ error: `${maxPending} requests wait already: await some first`, code: 429, tid });
      }
      return new Promise((resolve, reject) => {
        const late = () => request.done(new Failure({ error: `No reply within ${timeout} ms`, code: 408, tid }));
        const timer = setTimeout(late, Math.min(timeout, MAX_TIMEOUT));
        const done = (/** @type {any} */ outcome) => {
          clearTimeout(timer);
          this.#requests.delete(tid);
          (outcome instanceof Failure ? reject : resolve)(outcome);
        };
        const request = { text, retry, done, wasSent: false };
        this.#requests.set(tid, request);
        if (this.#state === 'open') this.#send(request);
      });
    }

    /** @param {Request} request */
    #send(request) {
      request.wasSent = true;
      this.#socket?.send(request.text);
    }

    /** @param {string} cmd @param {object | null} [args] */
    #command(cmd, args) {
      const { cmd: field, q } = this.#settings;
      return q ? { [field]: cmd, [q]: args || {} } : { ...args, [field]: cmd };
    }

    /** The result, or the whole of a frame that it was merged into. @param {WebShoes.Frame} frame */
    #value(frame) {
      const { rep } = this.#settings;
      return rep in frame ? frame[rep] : frame;
    }

    /** A callback of 1.0's, made while its element is there. @param {string} id @param {Function} [callback] */
    #shown(id, callback) {
      return (/** @type {WebShoes.Frame} */ frame) => {
        if (document.querySelector(id)) callback?.(this.#value(frame));
      };
    }

    // --- subscriptions ---

    /** Ask for it now; without a connection, the next one will. @param {Subscription} subscription */
    #subscribe(subscription) {
      const { name, uid, cursor } = subscription;
      subscription.isRefused = false;
      this.#subscriptions.set(uid, subscription);
      if (this.#state === 'connecting') return;
      const answered = this.#live(reply => subscription.answered(this.#value(reply)));
      const refused = this.#live(({ message, reply }) => {
        subscription.isRefused = true;
        const error = `Not subscribed to '${name}': ${message}`;
        this.#tell('error', new Failure({ code: 400, ...reply, error }, name));
      });
      this.#request({ [this.#settings.evt]: name, uid, since: cursor }, {}, true).then(answered, refused);
    }

    /** @param {Subscription} subscription */
    #unsubscribe({ name, uid }) {
      const { evt } = this.#settings;
      this.#subscriptions.delete(uid);
      // Whatever the answer: pushes that are still on their way find nobody.
      if (this.#state === 'open') this.#request({ [evt]: name, uid, off: true }, {}, true).catch(() => {});
    }

    // --- the connection ---

    #connect() {
      this.#generation++;
      this.#socket?.close();
      this.#openedAt = this.#heardAt = 0;
      const { url, protocols, deadAfter } = this.#settings;
      const socket = new WebSocket(url, protocols);
      socket.onopen = this.#live(() => this.#opened());
      socket.onmessage = this.#live(({ data }) => this.#received(data));
      socket.onclose = this.#live(({ code, reason }) => this.#end(REFUSALS.has(code) ? 'ended' : 'lost', code, reason));
      this.#socket = socket;
      this.#next(deadAfter, () => this.#end('lost', CLOSE.abnormal, `not open after ${deadAfter} ms`));
    }

    /** A handler that does nothing once its connection was given up. @param {(argument: any) => void} handler */
    #live(handler) {
      const generation = this.#generation;
      return (/** @type {any} */ argument) => { if (generation === this.#generation) handler(argument); };
    }

    /** @param {number} delay @param {() => void} step */
    #next(delay, step) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(step, Math.min(delay, MAX_TIMEOUT));
    }

    #opened() {
      this.#state = STATES[this.#state].opened || this.#state;
      this.#openedAt = performance.now();
      this.#watch();
      const waiting = [...this.#requests.values()];
      for (const subscription of this.#subscriptions.values()) this.#subscribe(subscription);
      for (const request of waiting) this.#send(request);
      this.#tell('open', undefined);
      this.#tell('state', this.#state);
    }

    /** @param {unknown} data */
    #received(data) {
      this.#heardAt = performance.now();
      let frame;
      try {
        frame = Object(JSON.parse(String(data)));
      } catch (error) {
        this.#tell('error', new Failure({ error: `The server sent no JSON: ${error}`, code: 400 }));
        return;
      }
      this.#tell('message', frame);
      const { rep, evt } = this.#settings;
      const isError = typeof frame.error === 'string' && typeof frame.code === 'number' && !(rep in frame);
      const request = this.#requests.get(frame.tid);
      if (request) request.done(isError ? new Failure(frame) : frame);
      else if (isError) this.#tell('error', new Failure(frame));
      else if ('tid' in frame) this.#tell('warning', new Failure({ code: 408, ...frame, error: 'Late reply' }));
      else if (evt in frame) this.#pushed(frame);
    }

    /** Without `uid` a push is for all who listen to that event. @param {WebShoes.Push} push */
    #pushed(push) {
      const { uid, [this.#settings.evt]: name } = push;
      const targets = uid === undefined ? this.#subscriptions.values() : [this.#subscriptions.get(uid)];
      for (const subscription of targets) if (subscription?.name === name) subscription?.pushed(push);
    }

    /** Ping when nothing was heard for long; then the connection has to show that it lives. */
    #watch() {
      const silence = performance.now() - Math.max(this.#openedAt, this.#heardAt);
      if (silence < this.#settings.pingAfter) this.#next(this.#settings.pingAfter - silence, () => this.#watch());
      else this.#ping();
    }

    #ping() {
      const { deadAfter } = this.#settings;
      const heardAt = this.#heardAt;
      this.#socket?.send('{"ping":1}');
      this.#next(deadAfter, () => {
        if (this.#heardAt > heardAt) this.#watch();
        else this.#end('lost', CLOSE.abnormal, `no answer to a ping in ${deadAfter} ms`);
      });
    }

    // A network again, maybe another one: what was to connect need not wait, and what was open may be dead.
    #online = () => {
      this.#attempts = 0;
      if (this.#state === 'open') this.#ping();
      else this.#connect();
    };

    /** @param {'lost' | 'ended'} how for a while, or for good @param {number} code @param {string} reason */
    #end(how, code, reason) {
      const before = this.#state;
      const state = STATES[before][how];
      if (!state) return;
      this.#state = state;
      this.#generation++;
      this.#socket?.close();
      clearTimeout(this.#timer);
      const retryIn = state === 'connecting' ? this.#delay(code) : null;
      if (retryIn !== null) this.#next(retryIn, () => this.#connect());
      else globalThis.removeEventListener?.('online', this.#online);
      if (retryIn === null) this.#subscriptions.clear();
      for (const [tid, { wasSent, retry, done }] of this.#requests) {
        // A message that is too big would only end the next connection as well.
        if (retryIn !== null && (!wasSent || (retry && code !== CLOSE.tooBig))) continue;
        const fate = wasSent ? 'whether it was carried out is not known' : 'it was not sent';
        done(new Failure({ error: `Connection lost before the reply (${code} ${reason}); ${fate}`, code: 503, tid }));
      }
      this.#tell('close', { code, reason, retryIn });
      if (this.#state !== before) this.#tell('state', this.#state);
      const refusal = REFUSALS.get(code);
      if (refusal) this.#tell('error', new Failure({ error: `${refusal} (${code} ${reason})`, code }));
    }

    /** Full jitter: a random time up to a ceiling that doubles. @param {number} code why the connection ended */
    #delay(code) {
      const { minDelay, maxDelay } = this.#settings;
      if (this.#heardAt && performance.now() - this.#openedAt > PROVEN_AFTER) this.#attempts = 0;
      if (code === CLOSE.tryLater) return maxDelay * (1 + Math.random());
      return Math.min(maxDelay, minDelay * 2 ** this.#attempts++) * Math.random();
    }

    /** @type {WebShoes.Callback} */
    #tell = (...event) => void run(this.#settings.cb, ...event);
  }

  globalThis.WebShoes = function WebShoes(settings) {
    return new Client(settings);
  };
})();
