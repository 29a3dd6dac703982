// The browser client as a module. It runs the script itself, which keeps a `WebShoes` that is there already: a page
// that uses both has one and the same.

import './webshoes.js';

export const { WebShoes } = globalThis;
export default WebShoes;
