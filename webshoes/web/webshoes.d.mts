// Types of the browser client, as a module; what they say is in webshoes.d.ts.

/// <reference path="./webshoes.d.ts" />

import Local = WebShoes;
export { Local as WebShoes, Local as default };
