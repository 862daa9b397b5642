-- The tables of the MCP gateway's observability, with each of their quirks once.
CREATE TABLE observability_traces (
  trace_id VARCHAR(36) NOT NULL PRIMARY KEY, name VARCHAR(255) NOT NULL, start_time DATETIME NOT NULL,
  end_time DATETIME, duration_ms FLOAT, status VARCHAR(20) NOT NULL, status_message TEXT,
  http_method VARCHAR(10), http_url VARCHAR(767), http_status_code INTEGER, user_email VARCHAR(255),
  user_agent TEXT, ip_address VARCHAR(45), attributes JSON, resource_attributes JSON,
  created_at DATETIME NOT NULL);
CREATE TABLE observability_spans (
  span_id VARCHAR(36) NOT NULL PRIMARY KEY, trace_id VARCHAR(36) NOT NULL, parent_span_id VARCHAR(36),
  name VARCHAR(255) NOT NULL, kind VARCHAR(20) NOT NULL, start_time DATETIME NOT NULL,
  end_time DATETIME, duration_ms FLOAT, status VARCHAR(20) NOT NULL, status_message TEXT,
  attributes JSON, resource_name VARCHAR(255), resource_type VARCHAR(50), resource_id VARCHAR(36),
  created_at DATETIME NOT NULL);
CREATE TABLE observability_events (
  id INTEGER NOT NULL PRIMARY KEY, span_id VARCHAR(36) NOT NULL, name VARCHAR(255) NOT NULL,
  timestamp DATETIME NOT NULL, attributes JSON, severity VARCHAR(20), message TEXT,
  exception_type VARCHAR(255), exception_message TEXT, exception_stacktrace TEXT,
  created_at DATETIME NOT NULL);
CREATE TABLE observability_metrics (
  id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(255) NOT NULL, metric_type VARCHAR(20) NOT NULL,
  value FLOAT NOT NULL, timestamp DATETIME NOT NULL, unit VARCHAR(20), attributes JSON,
  resource_type VARCHAR(50), resource_id VARCHAR(36), trace_id VARCHAR(36),
  created_at DATETIME NOT NULL);
CREATE TABLE tools (id VARCHAR(36) PRIMARY KEY, original_name VARCHAR, custom_name VARCHAR);
CREATE TABLE tool_metrics (
  id INTEGER NOT NULL PRIMARY KEY, tool_id VARCHAR NOT NULL, timestamp DATETIME NOT NULL,
  response_time FLOAT NOT NULL, is_success BOOLEAN NOT NULL, error_message TEXT);

INSERT INTO observability_traces VALUES
 ('250e9ab4-c6ca-4a51-9dc9-b289eac5f952', 'POST /rpc', '2026-11-23 06:46:06.000000',
  '2026-11-23 06:46:07.000000', 1000, 'ok', NULL, 'POST', 'http://127.0.0.1:4444/rpc', 200, NULL,
  'curl/7', '127.0.0.1', '{"http.route": "/rpc"}', '{"service.name": "mcp-gateway"}', 'x'),
 -- an id that the client sent, and reused for two requests that overlap
 ('8a0ac984f71ab247e88b759131db6e33', 'POST /rpc', '2026-11-23 06:46:10.000000',
  '2026-11-23 06:46:14.000000', 4000, 'ok', NULL, 'POST', 'http://127.0.0.1:4444/rpc', 200, NULL,
  'python-httpx', '127.0.0.1', '{}', '{"service.name": "mcp-gateway"}', 'x'),
 -- a trace without any span
 ('f2e073f6-84b4-4009-954b-9e896c6f8e4d', 'GET /tools/7', '2026-11-23 06:46:20.000000', NULL, NULL,
  'unset', NULL, 'GET', 'http://127.0.0.1:4444/tools/7?page=2', NULL, NULL, NULL, NULL, NULL,
  '{"service.name": "mcp-gateway"}', 'x');

INSERT INTO observability_spans VALUES
 ('9ee26203-35b2-490b-81a9-c16cbdcccf0a', '250e9ab4-c6ca-4a51-9dc9-b289eac5f952', NULL,
  'http.request', 'server', '2026-11-23 06:46:06.100000', '2026-11-23 06:46:06.900000', 800, 'ok',
  NULL, '{"http.method": "POST", "http.url": "http://127.0.0.1:4444/rpc?x=1", "http.status_code": 200}',
  NULL, NULL, NULL, 'x'),
 -- failed, though recorded as ok
 ('4186cb72-8567-4bc0-b5ef-397aa74bde9e', '250e9ab4-c6ca-4a51-9dc9-b289eac5f952', NULL,
  'tool.invoke', 'client', '2026-11-23 06:46:06.200000', '2026-11-23 06:46:06.800000', 600, 'ok',
  NULL, '{"tool.name": "search", "tool.id": "t1", "success": false}', 'search', 'tool', 't1', 'x'),
 ('2e37ef7d-7c9f-475a-94c7-2584b52d0ebf', '250e9ab4-c6ca-4a51-9dc9-b289eac5f952', NULL,
  'db.query', 'client', '2026-11-23 06:46:06.300000', '2026-11-23 06:46:06.400000', 100, 'ok', NULL,
  'no json', NULL, NULL, NULL, 'x'),
 ('f5293080-9f86-423a-bc0d-e579b6d08faf', '8a0ac984f71ab247e88b759131db6e33', NULL,
  'http.request', 'server', '2026-11-23 06:46:10.000000', '2026-11-23 06:46:14.000000', 4000, 'ok',
  NULL, '{"http.method": "POST", "http.url": "http://127.0.0.1:4444/rpc"}', NULL, NULL, NULL, 'x'),
 ('09f47693-7fc1-4974-a12c-83b7dbb99a8e', '8a0ac984f71ab247e88b759131db6e33', NULL,
  'http.request', 'server', '2026-11-23 06:46:11.000000', '2026-11-23 06:46:12.000000', 1000, 'ok',
  NULL, '{"http.method": "POST", "http.url": "http://127.0.0.1:4444/rpc"}', NULL, NULL, NULL, 'x'),
 ('4b359f41-4665-49f6-94e4-6f9995b7049b', '8a0ac984f71ab247e88b759131db6e33', NULL,
  'resource.read', 'internal', '2026-11-23 06:46:11.200000', '2026-11-23 06:46:11.400000', 200, 'ok',
  NULL, '{}', NULL, NULL, NULL, 'x'),
 -- still open
 ('c3468d30-7f57-4b4b-8bd0-fef464370c77', '8a0ac984f71ab247e88b759131db6e33', NULL,
  'prompt.render', 'internal', '2026-11-23 06:46:13.000000', NULL, NULL, 'unset', NULL, NULL, NULL,
  NULL, NULL, 'x');

INSERT INTO observability_events VALUES
 (1, '4186cb72-8567-4bc0-b5ef-397aa74bde9e', 'exception', '2026-11-23 06:46:06.700000', NULL,
  'error', 'it broke', 'ValueError', 'no such tool', 'Traceback', 'x');
INSERT INTO observability_metrics VALUES
 (1, 'queue.size', 'gauge', 3, '2026-11-23 06:46:06', '1', '{"b": 1, "a": 2}', NULL, NULL, NULL, 'x');
INSERT INTO tools VALUES ('t1', 'search', 'search'), ('t2', 'echo', NULL);
INSERT INTO tool_metrics VALUES
 (1, 't1', '2026-11-23 06:46:06.800000', 0.6, 0, 'no such tool'),
 (2, 't2', '2026-11-23 06:46:06.900000', 0.25, 1, NULL);
