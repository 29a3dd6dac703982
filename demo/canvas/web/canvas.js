'use strict';

const SEND_EVERY = 40; // ms between two pieces of a stroke: as it is drawn, many points to a message

const $ = id => document.getElementById(id);
const canvas = $('canvas');
const paint = canvas.getContext('2d');
paint.lineCap = paint.lineJoin = 'round';

const ends = new Map(); // stroke -> its last point, where its next piece goes on
const mine = new Set(); // strokes that were drawn here already, when their pieces come back
let erasing = false;

// --- what is drawn ---

function draw({ stroke, color, width, points, erase }) {
  paint.strokeStyle = erase ? '#ffffff' : color;
  paint.lineWidth = width;
  paint.beginPath();
  paint.moveTo(...(ends.get(stroke) || points.slice(0, 2)));
  // A hair's breadth more, as a line of no length, a tap, would not be drawn at all.
  for (let i = 0; i < points.length; i += 2) paint.lineTo(points[i] + 0.01, points[i + 1]);
  paint.stroke();
  ends.set(stroke, points.slice(-2));
}

function wipe() {
  paint.fillStyle = '#ffffff';
  paint.fillRect(0, 0, canvas.width, canvas.height);
  ends.clear();
}

// --- the others ---

function showState(state) {
  $('state').textContent = $('state').dataset.state = state;
}

const wsc = WebShoes({ cb: (type, data) => { if (type === 'state') showState(data); } });
const say = error => { $('note').textContent = error ? error.message : 'Draw: every open tab sees it while you do.'; };
let off = () => {};

// The whole drawing, and from its position on each piece; anew when pieces are gone or the server has begun anew.
async function load() {
  off();
  const drawing = await wsc.call('canvas/drawing', {}, { retry: true });
  wipe();
  mine.clear();
  drawing.strokes.forEach(draw);
  $('count').textContent = drawing.strokes.length;
  off = wsc.onEvent('canvas', follow, { since: { ver: drawing.ver, epoch: drawing.epoch } });
}

function follow(push) {
  if (push.from !== undefined || push.epoch !== undefined) {
    load().catch(say);
    return;
  }
  if (push.r.clear) wipe();
  else if (!mine.has(push.r.piece.stroke)) draw(push.r.piece);
  $('count').textContent = push.r.strokes;
}

// --- the pen ---

const pens = new Map(); // pointer -> the stroke it draws

function at(event) {
  const box = canvas.getBoundingClientRect();
  const scale = canvas.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale].map(n => Math.round(n * 10) / 10);
}

function send(pen) {
  clearTimeout(pen.timer);
  pen.timer = 0;
  if (!pen.points.length) return;
  const { stroke, color, width, erase, at } = pen;
  const points = pen.points.splice(0);
  pen.at += points.length;
  // Safe to repeat: `at` tells the server what it has. So what is drawn while the connection is away gets there later.
  wsc.call('canvas/draw', { stroke, color, width, erase, at, points }, { retry: true }).then(() => say(), say);
}

canvas.addEventListener('pointerdown', event => {
  if (event.button) return;
  canvas.setPointerCapture(event.pointerId);
  const stroke = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
  mine.add(stroke);
  pens.set(event.pointerId, { stroke, color: $('color').value, width: erasing ? 24 : 4, erase: erasing, at: 0, points: [], timer: 0 });
  move(event);
});

function move(event) {
  const pen = pens.get(event.pointerId);
  if (!pen) return;
  const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  const points = (events.length ? events : [event]).flatMap(at);
  draw({ ...pen, points });
  pen.points.push(...points);
  if (!pen.timer) pen.timer = setTimeout(send, SEND_EVERY, pen);
}

function lift(event) {
  const pen = pens.get(event.pointerId);
  pens.delete(event.pointerId);
  if (pen) send(pen);
}

canvas.addEventListener('pointermove', move);
canvas.addEventListener('pointerup', lift);
canvas.addEventListener('pointercancel', lift);

// --- the tools ---

function choose(eraser) {
  erasing = eraser;
  $('pen').setAttribute('aria-pressed', !eraser);
  $('eraser').setAttribute('aria-pressed', eraser);
}

$('pen').onclick = () => choose(false);
$('eraser').onclick = () => choose(true);
$('color').oninput = () => choose(false);
$('clear').onclick = () => wsc.call('canvas/clear').then(() => say(), say);
$('save').onclick = () => {
  const link = document.createElement('a');
  link.download = 'canvas.png';
  link.href = canvas.toDataURL('image/png');
  link.click();
};

wipe();
load().catch(say);
