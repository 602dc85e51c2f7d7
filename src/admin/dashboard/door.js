// How the page asks: the same paths as everybody, with the token where one is needed.

import { $, say } from './dom.js';

const KEPT = 'sidetrack-token';

/** Longer than any answer should take. */
const PATIENCE = 5000;

export class Refused extends Error {}

const token = () => sessionStorage.getItem(KEPT);

function headers(more) {
  const kept = token();
  return kept ? { ...more, authorization: `Bearer ${kept}` } : more;
}

/** What a path has behind it when it is about one of several pools. */
export const about = (pool) => (pool === undefined ? '' : `?pool=${encodeURIComponent(pool)}`);

/** GET without a body, POST with one. */
export async function ask(path, body) {
  const sent = body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) };
  // Policies may have to be compiled before an order is carried out.
  const signal = AbortSignal.timeout(body === undefined ? PATIENCE : 10 * PATIENCE);
  for (;;) {
    const tried = token();
    const response = await fetch(path, { ...sent, signal, headers: headers({ 'content-type': 'application/json' }) });
    if (response.status === 401) {
      const { error } = await response.json();
      // Another one may have been entered while this answer was on its way: then that one is tried.
      if (entering || token() === tried) await enter(tried ? error : '');
      if (signal.aborted) return ask(path, body);
      continue;
    }
    const value = await response.json();
    if (!response.ok) throw new Refused(value.error ?? response.statusText);
    return value;
  }
}

/** Lines as they come, until the signal or the end. */
export async function follow(path, signal, heard) {
  const response = await fetch(path, { signal, headers: headers({}) });
  if (!response.ok) throw new Refused((await response.json()).error ?? response.statusText);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    heard(lines);
  }
}

let entering;

/** Asks for the token, once for all who wait. */
function enter(error) {
  sessionStorage.removeItem(KEPT);
  entering ??= new Promise((resolve) => {
    const [door, form, field] = [$('door'), $('door-form'), $('token')];
    say($('door-error'), error);
    field.value = '';
    if (!door.open) door.showModal();
    // Without a token there is nothing behind the dialog.
    door.oncancel = (event) => event.preventDefault();
    form.onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEPT, field.value.trim());
      $('forget').hidden = false;
      door.close();
      entering = undefined;
      resolve();
    };
  });
  return entering;
}

$('forget').hidden = !token();
$('forget').onclick = () => {
  sessionStorage.removeItem(KEPT);
  location.reload();
};
