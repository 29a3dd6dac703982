// Types of the client, the script that defines the global `WebShoes`; webshoes.d.mts has those of the module.

/** Connect to a webshoes server. Returns at once; what is asked before there is a connection waits for it. */
declare var WebShoes: {
  (settings?: WebShoes.Settings): WebShoes.Client;
  /** The folder that the script came from, over http: or https:. It is the default of the setting `url`. */
  base: string | undefined;
};

declare namespace WebShoes {
  /** All times are in milliseconds. An unknown setting is a TypeError. */
  interface Settings {
    /** Where the server is: ws:, wss:, http: or https:, or relative to the page. Default: the folder of the script. */
    url?: string;
    /**
     * The token of the login, offered as a subprotocol. A function is called at each attempt to connect, and once more
     * when the server wants another login (close code 4401). If it has no other token then, the client is closed.
     */
    token?: string | null | (() => string | null | undefined | Promise<string | null | undefined>);
    /** Subprotocols to offer. Default `['webshoes']`. */
    protocols?: string[];
    /** Told what happens. Default: errors and warnings go to the console. */
    cb?: Callback;
    /** The entry's field of a command, as registered. Default 'cmd'. */
    cmd?: string;
    /** The entry's field of the arguments; '' where the whole message holds them. Default 'q'. */
    q?: string;
    /** The entry's field of an event. Default 'evt'. */
    evt?: string;
    /** The entry's field of the result; '' where it is merged into the reply. Default 'r'. */
    rep?: string;
    /**
     * How long a request waits for its reply, connecting included; the time in which a big message is on its way does
     * not count. Default 30000; Infinity: for ever.
     */
    timeout?: number;
    /** How many requests may wait, for the connection or for their replies; one more fails with 429. Default 1000. */
    maxPending?: number;
    /** The n-th attempt to reconnect comes after a random time up to `minDelay * 2 ** n`. Default 500. */
    minDelay?: number;
    /** ... and up to this at most. Default 20000; 3000 for loopback and private addresses. */
    maxDelay?: number;
    /** Silence after which the server is pinged. Default 25000. */
    pingAfter?: number;
    /** How long a connection may take to open, or to answer a ping. Default 10000. */
    deadAfter?: number;
  }

  /** 'connecting' is also the time between two attempts; 'closed' is final. */
  type State = 'connecting' | 'open' | 'closed';

  interface Events {
    /** There is a connection; the subscriptions were asked for. */
    open: undefined;
    /** A connection was lost, or an attempt failed. `retryIn`: milliseconds to the next attempt, null if none comes. */
    close: { code: number; reason: string; retryIn: number | null };
    /** Something failed that has nobody else to tell: a refused subscription (`event`), a refused connection. */
    error: Failure;
    /** Something odd that lost nothing: a reply that came too late, a subscription (`event`) that is asked for again. */
    warning: Failure;
    state: State;
    /** Each message of the server, as it came. */
    message: Frame;
  }

  type Callback = (...event: { [T in keyof Events]: [type: T, data: Events[T]] }[keyof Events]) => void;

  /** What an error reply becomes. */
  interface Failure extends Error {
    /**
     * The server's, or: 401, 403 the connection was refused, 408 no reply in time, 413 the message was too big for the
     * server, 429 too many requests, 503 connection lost or closed. A refused connection itself has its close code.
     */
    code: number;
    /** The event, where a subscription failed. */
    event?: string;
    reply: ErrorReply;
  }

  type Tid = string | number;

  /** A message of the server. */
  type Frame = Record<string, any>;

  /** `{ r: value, tid, t }`, `r` being the setting `rep`. */
  type Reply = Frame & { tid: Tid; t: number };

  type ErrorReply = Frame & { error: string; code: number; tid?: Tid };

  /** `{ evt: name, r: value, ver, t }`, `evt` and `r` being the settings; a push to this client alone has no `ver`. */
  type Push = Frame & {
    ver?: number;
    t?: number;
    /** Versions `from` to `ver - 1` were skipped. */
    from?: number;
    /** This is the first value of a new history. */
    epoch?: string;
  };

  /** A position in an event's history; `{ ver: 0 }` is its beginning. */
  interface Since {
    ver: number;
    epoch?: string;
  }

  /** A function that ends a subscription. */
  interface Off {
    (): void;
    /** The version that was delivered last, and its history. Before the server has answered: `since`, or `undefined`. */
    readonly position: Since | undefined;
  }

  interface RequestOptions {
    /** Milliseconds; default: the setting `timeout`. */
    timeout?: number;
    /** Whether to send it again if the connection is lost before the reply: only what is safe to do twice. */
    retry?: boolean;
    /** Whether it may wait for a connection (default). With false it fails with 503 where there is none. */
    queue?: boolean;
    /** Ends the call: it rejects with the signal's reason, and the server is told to stop it. */
    signal?: AbortSignal | null;
  }

  interface EventOptions {
    /** Asks for what came after that position: `{ ver: 0 }` gives all that the server's log holds. */
    since?: Since | null;
    /** Ends the subscription. */
    signal?: AbortSignal | null;
  }

  interface Client {
    readonly state: State;

    /** Send a message, `{ cmd: 'cmd/add', q: { a: 3 } }`. The callback gets the reply, or the error reply. */
    msg(message: object, callback?: (reply: Frame) => void, options?: RequestOptions): Promise<Reply>;
    /** As in webshoes 1.0: the callback gets the value of `r`, if an element matches the selector `id`. */
    msg(id: string, cmd: string, params?: object, callback?: (value: any) => void): Promise<Reply>;

    /** Call a command; the result, or a rejection with a Failure. */
    call(cmd: string, args?: object, options?: RequestOptions): Promise<any>;

    /** Get an event's newest value and each that follows, until the function that is returned is called. */
    onEvent(name: string, callback: (data: Push) => void, options?: EventOptions): Off;
    /** As in webshoes 1.0: the callback gets the value of `r`, if an element matches the selector `id`. */
    onEvent(id: string, event: string, params: object | null | undefined, callback: (value: any) => void): Off;

    /** Be told what happens, like the setting `cb`; returns the function that ends it. */
    on<T extends keyof Events>(type: T, fn: (data: Events[T]) => void): () => void;

    /** End the connection, for good. Requests without a reply fail with 503. */
    close(): void;
  }
}
