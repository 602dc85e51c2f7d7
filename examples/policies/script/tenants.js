// Workers that belong to tenants: a request that names a tenant in a header goes to one of that tenant's
// workers, and is turned away when there is none. Others are for the next policy of the chain.
//
//   sidetrack run --label w0:tenant=acme --label w1:tenant=acme --label w2:tenant=initech \
//     --policy './tenants.js{"header": "x-tenant"}' --policy least-connection -- node server.js

let header = 'x-tenant';

export function configure(options) {
  if (options.header === undefined) return;
  if (typeof options.header !== 'string') throw new Error(`expected a header's name, found ${options.header}`);
  header = options.header;
}

export function balance(workers, request) {
  const tenant = request.header(header);
  if (!tenant) return;
  const own = workers.filter(worker => worker.labels.tenant === tenant);
  return leastLoaded(own) ?? refuse(503, { retryAfter: 5, text: `no worker for ${tenant}` });
}
