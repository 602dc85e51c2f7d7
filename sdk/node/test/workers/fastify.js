'use strict';

const fastify = require('fastify')({ bodyLimit: 2e6 });
const { begin, count, end } = require('./counters');

fastify.addContentTypeParser('*', { parseAs: 'buffer' }, async (request, body) => body);
fastify.get('/begin', async (request, reply) => {
  const { headers, body } = await begin();
  reply.headers(headers);
  return body;
});
const counting = async (request, reply) => {
  const { status, body } = count(request, request.body);
  reply.code(status);
  return body;
};
fastify.get('/count', counting);
fastify.post('/count', counting);
fastify.delete('/end', async (request, reply) => {
  const { status, headers } = await end(request);
  return reply.code(status).headers(headers).send();
});
fastify.listen({ port: Number(process.env.PORT), host: '0.0.0.0' });
