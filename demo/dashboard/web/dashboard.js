'use strict';

const $ = id => document.getElementById(id);
const losses = [];
let target = null;
let newest = null;

// --- the program ---

function showState(state) {
  $('state').textContent = $('state').dataset.state = state;
}

const wsc = WebShoes({ cb: (type, data) => { if (type === 'state') showState(data); } });
const say = error => { $('note').textContent = error.message; };

const mine = { count: 0, gone: 0, ver: 0 };
wsc.onEvent('step', push => {
  count(mine, push);
  if (newest && push.r.step < newest.step) losses.length = 0; // it forgot everything
  newest = push.r;
  losses.push(push.r.loss);
  if (losses.length > 2000) losses.shift();
});

wsc.call('train/target', {}, { retry: true }).then(found => {
  target = found;
  $('slider').value = Math.log10(found.rate);
  $('rate').textContent = found.rate.toPrecision(2);
}).catch(say);

$('slider').oninput = () => wsc.call('train/rate', { rate: 10 ** $('slider').value })
  .then(rate => { $('rate').textContent = rate.toPrecision(2); })
  .catch(say);
$('reset').onclick = () => wsc.call('train/reset').catch(say);

// --- the second client, in a worker ---

const other = new Worker('second.js');
let theirs = { count: 0, gone: 0, ver: 0 };
other.onmessage = ({ data }) => {
  theirs = data;
  $('stall').disabled = data.stalled;
};
$('stall').onclick = () => {
  $('stall').disabled = true;
  other.postMessage('stall');
};

function count(who, push) {
  who.count += 1;
  who.gone += push.from === undefined ? 0 : push.ver - push.from;
  who.ver = push.ver;
}

let before = [0, 0];
setInterval(() => {
  const now = [mine.count, theirs.count];
  ['mine', 'other'].forEach((name, i) => { $(`${name}-rate`).textContent = now[i] - before[i]; });
  before = now;
}, 1000);

// --- the plots ---

function plane(canvas) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
  const paint = canvas.getContext('2d');
  paint.setTransform(scale, 0, 0, scale, 0, 0);
  paint.clearRect(0, 0, width, height);
  paint.lineJoin = 'round';
  return { paint, width, height };
}

const style = name => getComputedStyle(document.documentElement).getPropertyValue(name);

function line(paint, xs, ys) {
  paint.beginPath();
  xs.forEach((x, i) => paint.lineTo(x, ys[i]));
  paint.stroke();
}

function drawFit() {
  const { paint, width, height } = plane($('fit'));
  const x = value => (value + 1) / 2 * width;
  const y = value => height / 2 - value * height / 4;
  paint.fillStyle = style('--dot');
  target.x.forEach((at, i) => { paint.fillRect(x(at) - 1.5, y(target.y[i]) - 1.5, 3, 3); });
  paint.strokeStyle = style('--accent');
  paint.lineWidth = 2;
  line(paint, target.x.map(x), newest.curve.map(y));
}

function drawErrors() {
  const { paint, width, height } = plane($('errors'));
  const logs = losses.map(loss => Math.log10(Math.max(loss, 1e-6)));
  const low = Math.floor(Math.min(...logs));
  const high = Math.max(Math.ceil(Math.max(...logs)), low + 1);
  const y = value => (high - value) / (high - low) * (height - 8) + 4;
  paint.font = '11px system-ui';
  for (let power = low; power <= high; power++) {
    paint.strokeStyle = style('--line');
    paint.lineWidth = 1;
    line(paint, [0, width], [y(power), y(power)]);
    paint.fillStyle = style('--dot');
    paint.fillText(`1e${power}`, 2, Math.max(y(power) - 3, 10));
  }
  paint.strokeStyle = style('--accent');
  paint.lineWidth = 1.5;
  line(paint, logs.map((_, i) => i / Math.max(logs.length - 1, 1) * width), logs.map(y));
}

function show() {
  if (newest && target) {
    drawFit();
    drawErrors();
    $('step').textContent = `step ${newest.step}`;
    $('loss').textContent = newest.loss.toFixed(4);
  }
  for (const [name, who] of [['mine', mine], ['other', theirs]]) {
    for (const key of ['count', 'gone', 'ver']) $(`${name}-${key}`).textContent = who[key];
  }
  requestAnimationFrame(show);
}

show();
