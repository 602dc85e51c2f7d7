// The chain: what decides, since when, what it has cost, and the way back.

import { $, brief, make, number, say, span } from './dom.js';

const FAULTS = { fuel: 'out of fuel', deadline: 'too slow', memory: 'too much memory', oversized: 'oversized', trap: 'trapped' };

/** How the end of a version looks. */
const KINDS = { replaced: 'swap', 'rolled back': 'back' };

export const faults = ({ counts }) => Object.values(counts.faults).reduce((sum, count) => sum + count, 0);

/** Where a version took over, in the last minutes: what the chart marks. */
export function marks({ pool, links }, several) {
  return links.flatMap((link) => {
    const own = `${several ? `${pool} ` : ''}${links.length > 1 ? `${link.name} ` : ''}`;
    return link.history.map((version, at) => {
      const short = `g${at === 0 ? link.generation : link.history[at - 1].generation}`;
      return { t: Date.parse(version.until), text: own + short, short, kind: KINDS[version.ended] ?? 'fell' };
    });
  });
}

let shown = '';

/** Built anew only when something in it is new; the counters are written where they stand. */
export function show(chains, now, back) {
  const links = chains.flatMap((chain) => chain.links);
  const form = JSON.stringify([chains.map(({ pool, last, shadow }) => [pool, last, shadow?.policy]),
    links.map(({ name, generation, in_service, options, history }) => [name, generation, in_service, options, history.length])]);
  if (form !== shown) {
    shown = form;
    $('policy').replaceChildren(...chains.flatMap((chain) => begin(chain, back)));
  }
  const places = $('policy').querySelectorAll('.link');
  links.forEach((one, at) => count(places[at], one, now));
  const shadows = chains.map(({ shadow }) => shadow).filter(Boolean);
  $('policy').querySelectorAll('.agreement').forEach((place, at) => {
    const { agreement: share, asked, failed } = shadows[at];
    say(place, `${share === null ? 'nothing compared yet' : `agrees on ${(share * 100).toFixed(1)} %`} of ${number(asked)}${failed ? `, ${number(failed)} failed` : ''}`);
  });
}

function begin({ pool, links, last, shadow }, back) {
  const parts = links.map((one) => link(one, (link) => back(link, pool)));
  if (pool !== undefined) parts.unshift(make('p', 'pool', `pool ${pool}`));
  parts.push(make('p', 'last', links.length > 0 ? 'then ' : '', make('b', '', last), ', native'));
  if (shadow) parts.push(make('div', 'shadow', make('h3', '', 'Shadow'), make('p', '', make('code', '', shadow.policy)), make('p', 'agreement')));
  return parts;
}

function link(one, back) {
  const { name, policy, options, generation, digest, in_service: serves, history } = one;
  const title = make('h3', '', make('b', 'generation', `g${generation}`), name);
  const facts = make('dl', 'facts');
  const fact = (term, kind, ...children) => facts.append(make('dt', '', term), make('dd', kind, ...children));
  if (policy !== name) fact('policy', '', make('code', '', policy));
  if (options !== '{}') fact('options', '', make('code', '', options));
  fact('since', 'since');
  fact('calls', 'calls');
  fact('faults', 'faulty');
  if (digest) fact('digest', '', make('code', '', digest.slice(0, 12)));
  const element = make('article', 'link', title, facts);
  if (!serves) title.append(make('span', 'pill bad', 'out of service'));
  title.append(make('span', 'pill warn trial'));
  if (history.length > 0) {
    const button = make('button', 'small', 'Roll back');
    button.setAttribute('aria-label', `Roll ${name} back to generation ${history[0].generation}`);
    button.onclick = () => back(one);
    title.append(button);
    const list = make('ol', 'history');
    for (const version of history.slice(0, 5)) {
      list.append(make('li', '', make('b', 'generation', `g${version.generation}`), make('code', '', version.policy.split('/').at(-1)),
        make('span', KINDS[version.ended] ?? 'fell', version.ended, version.reason ? `: ${version.reason}` : '')));
    }
    element.append(list);
  }
  return element;
}

function count(element, one, now) {
  const { counts, trial_left_ms: trial } = one;
  say(element.querySelector('.since'), `${span((now - Date.parse(one.since)) / 1000)} ago`);
  say(element.querySelector('.calls'), `${brief(counts.calls)}${counts.native_calls ? `, ${brief(counts.native_calls)} answered natively` : ''}`);
  const kinds = Object.entries(counts.faults).filter(([, count]) => count > 0).map(([kind, count]) => `${number(count)} ${FAULTS[kind] ?? kind}`);
  if (counts.bad_answers > 0) kinds.push(`${number(counts.bad_answers)} bad answers`);
  const faulty = element.querySelector('.faulty');
  say(faulty, kinds.join(', ') || 'none');
  faulty.classList.toggle('some', kinds.length > 0);
  const pill = element.querySelector('.trial');
  say(pill, trial === null ? '' : `on trial, ${Math.ceil(trial / 1000)} s`);
  pill.hidden = trial === null;
}
