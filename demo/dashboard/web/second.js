'use strict';

// A client of its own, on a thread of its own, so that it can take nothing while the page goes on.
importScripts('../webshoes.js');

const seen = { count: 0, gone: 0, ver: 0, stalled: false };

WebShoes({ url: new URL('..', location.href).href }).onEvent('step', push => {
  seen.count += 1;
  seen.gone += push.from === undefined ? 0 : push.ver - push.from;
  seen.ver = push.ver;
});

setInterval(() => postMessage(seen), 100);

onmessage = () => {
  postMessage({ ...seen, stalled: true });
  const request = new XMLHttpRequest();
  request.open('GET', '../train/nap', false); // blocks this thread until it is answered
  try {
    request.send();
  } catch (error) {
    console.warn('The stall was cut short:', error.message);
  }
};
