// Nest is written with decorators; these are the same calls without a compiler.
'use strict';

require('reflect-metadata');
const express = require('express');
const { NestFactory } = require('@nestjs/core');
const { Controller, Delete, Get, Module, Post, Req, Res } = require('@nestjs/common');
const counters = require('./counters');

class Counters {
  async begin(request, response) {
    const { headers, body } = await counters.begin();
    response.set(headers).json(body);
  }
  count(request, response) {
    const { status, body } = counters.count(request, request.body);
    response.status(status).json(body);
  }
  add(request, response) {
    this.count(request, response);
  }
  async end(request, response) {
    const { status, headers } = await counters.end(request);
    response.status(status).set(headers).end();
  }
}
Controller()(Counters);
for (const [name, route] of [['begin', Get('begin')], ['count', Get('count')], ['add', Post('count')], ['end', Delete('end')]]) {
  const { prototype } = Counters;
  Req()(prototype, name, 0);
  Res()(prototype, name, 1);
  route(prototype, name, Object.getOwnPropertyDescriptor(prototype, name));
}
class App {}
Module({ controllers: [Counters] })(App);

NestFactory.create(App, { logger: ['error', 'warn'], bodyParser: false }).then((app) => {
  app.use(express.raw({ type: '*/*', limit: '2mb' }));
  return app.listen(process.env.PORT);
});
