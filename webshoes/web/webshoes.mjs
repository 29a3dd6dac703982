// The client as a module. It runs the script itself, which keeps a `WebShoes` that is there already: a page that uses
// both has one and the same. Where the script came from another server, this module has a `WebShoes` of its own.

import './webshoes.js';

const { WebShoes: shared } = globalThis;
const folder = /^https?:/.test(import.meta.url) ? new URL('.', import.meta.url).href : undefined;
shared.base ||= folder;

/** @param {WebShoes.Settings} [settings] */
const own = settings => shared({ ...settings, url: settings?.url ?? folder });
own.base = folder;

export const WebShoes = !folder || shared.base === folder ? shared : own;
export default WebShoes;
