// An ordinary MCP server over Streamable HTTP whose sessions live in this process's memory. Nothing in
// it knows of several processes.
'use strict';

const { randomUUID } = require('node:crypto');
const { createMcpExpressApp } = require('@modelcontextprotocol/sdk/server/express.js');
const { McpServer } = require('@modelcontextprotocol/sdk/server/mcp.js');
const { StreamableHTTPServerTransport } = require('@modelcontextprotocol/sdk/server/streamableHttp.js');
const { isInitializeRequest } = require('@modelcontextprotocol/sdk/types.js');

const sessions = new Map(); // id → transport

/** What one client talks to: a counter of its own. */
function counter() {
  let count = 0;
  const mcp = new McpServer({ name: 'counter', version: '1.0.0' }, { capabilities: { logging: {} } });
  mcp.registerTool('count', { description: 'Counts the calls of this session' }, async () => {
    count++;
    // Sent on the session's own event stream (GET), not in the answer.
    await mcp.sendLoggingMessage({ level: 'info', data: { count, pid: process.pid } });
    return { content: [{ type: 'text', text: JSON.stringify({ count, pid: process.pid }) }] };
  });
  return mcp;
}

async function begin() {
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    onsessioninitialized: (id) => sessions.set(id, transport),
  });
  transport.onclose = () => sessions.delete(transport.sessionId);
  await counter().connect(transport);
  return transport;
}

const refuse = (res, status, message) => res.status(status).json({ jsonrpc: '2.0', error: { code: -32000, message }, id: null });

const app = createMcpExpressApp();
app.all('/mcp', async (req, res) => {
  const id = req.headers['mcp-session-id'];
  if (id === undefined && !isInitializeRequest(req.body)) return refuse(res, 400, 'no session');
  const transport = id === undefined ? await begin() : sessions.get(id);
  // The status that tells a client to begin a new session.
  if (!transport) return refuse(res, 404, 'session not found');
  await transport.handleRequest(req, res, req.body);
});

const server = app.listen(Number(process.env.PORT ?? 3000), () => {
  console.log(`process ${process.pid} serves MCP on port ${server.address().port}`);
});
