BEGIN TRANSACTION;
CREATE TABLE calls (
    id TEXT PRIMARY KEY,
    at REAL NOT NULL,
    model TEXT,
    provider TEXT,
    usage TEXT,
    cost INTEGER,
    saved_cache INTEGER,
    saved_router INTEGER,
    saved_batch INTEGER,
    latency REAL,
    cache TEXT,
    complexity TEXT,
    replaces TEXT,
    batch INTEGER NOT NULL,
    tags TEXT NOT NULL,
    error TEXT,
    rejected INTEGER NOT NULL DEFAULT 0
, tier TEXT, why TEXT, arm TEXT, shadow INTEGER NOT NULL DEFAULT 0);
INSERT INTO "calls" VALUES('draft',1.0,'cheap',NULL,NULL,100000000000,0,-100000000000,0,1.5,NULL,'medium',NULL,0,'["x"]',NULL,1,'cheap','short',NULL,0);
INSERT INTO "calls" VALUES('final',2.0,'strong',NULL,'{"input_tokens": 5, "output_tokens": 4, "cache_read_tokens": 3, "cache_write_tokens": 0, "cache_write_1h_tokens": 0, "reasoning_tokens": 0, "input_audio_tokens": 0, "output_audio_tokens": 0, "estimated": false}',1000000000000,0,0,0,3.5,NULL,'medium','draft',0,'["x"]',NULL,0,NULL,NULL,NULL,0);
INSERT INTO "calls" VALUES('hit',3.0,'strong',NULL,NULL,0,1000000000000,0,0,NULL,'exact',NULL,NULL,0,'[]',NULL,0,NULL,NULL,NULL,0);
INSERT INTO "calls" VALUES('unpriced',3601.0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,'[]',NULL,0,NULL,NULL,NULL,0);
CREATE TABLE hours (
    hour INTEGER NOT NULL,
    model TEXT NOT NULL,
    requests INTEGER NOT NULL, priced INTEGER NOT NULL, calls INTEGER NOT NULL, shadow_calls INTEGER NOT NULL, errors INTEGER NOT NULL, exact INTEGER NOT NULL, semantic INTEGER NOT NULL, routed INTEGER NOT NULL, escalated INTEGER NOT NULL, timed INTEGER NOT NULL, micros INTEGER NOT NULL, unpriced INTEGER NOT NULL, paid INTEGER NOT NULL, cost INTEGER NOT NULL, rejected_cost INTEGER NOT NULL, shadow_cost INTEGER NOT NULL, saved_cache INTEGER NOT NULL, saved_router INTEGER NOT NULL, saved_batch INTEGER NOT NULL,
    PRIMARY KEY (hour, model)
) WITHOUT ROWID;
INSERT INTO "hours" VALUES(0,'cheap',0,0,1,0,0,0,0,0,0,0,1500000,0,1,100000000000,100000000000,0,0,-100000000000,0);
INSERT INTO "hours" VALUES(0,'strong',2,2,1,0,0,1,0,1,1,1,3500000,0,1,1000000000000,0,0,1000000000000,0,0);
INSERT INTO "hours" VALUES(1,'unknown',1,0,1,0,0,0,0,0,0,0,0,1,0,0,0,0,0,0,0);
CREATE TABLE scores (
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    at REAL NOT NULL,
    score REAL NOT NULL,
    PRIMARY KEY (id, source)
);
INSERT INTO "scores" VALUES('final','user',10.0,1.0);
CREATE INDEX calls_at ON calls (at);
CREATE INDEX calls_replaces ON calls (replaces) WHERE replaces IS NOT NULL
;
CREATE VIEW counted AS
SELECT id, at, CAST(at AS INTEGER) / 3600 AS hour, coalesce(model, 'unknown') AS model, tags,
       request AS requests, request AND cost IS NOT NULL AS priced, cache IS NULL AS calls, shadow AS shadow_calls, error IS NOT NULL AS errors, request AND cache IS 'exact' AS exact, request AND cache IS 'semantic' AS semantic, request AND coalesce(complexity, replaces) IS NOT NULL AS routed, request AND replaces IS NOT NULL AS escalated, request AND NOT batch AND latency IS NOT NULL AS timed, iif(shadow OR batch OR latency IS NULL, 0, CAST(round(latency * 1e6) AS INTEGER)) AS micros, cost IS NULL AND error IS NULL AS unpriced, cache IS NULL AND cost IS NOT NULL AS paid, coalesce(cost, 0) AS cost, iif(rejected AND NOT shadow, coalesce(cost, 0), 0) AS rejected_cost, iif(shadow, coalesce(cost, 0), 0) AS shadow_cost, coalesce(saved_cache, 0) AS saved_cache, coalesce(saved_router, 0) AS saved_router, coalesce(saved_batch, 0) AS saved_batch
FROM (SELECT *, NOT (rejected OR shadow) AS request FROM calls);
CREATE TRIGGER calls_added AFTER INSERT ON calls BEGIN INSERT INTO hours (hour, model, requests, priced, calls, shadow_calls, errors, exact, semantic, routed, escalated, timed, micros, unpriced, paid, cost, rejected_cost, shadow_cost, saved_cache, saved_router, saved_batch) SELECT hour, model, requests, priced, calls, shadow_calls, errors, exact, semantic, routed, escalated, timed, micros, unpriced, paid, cost, rejected_cost, shadow_cost, saved_cache, saved_router, saved_batch FROM counted WHERE id = NEW.id ON CONFLICT (hour, model) DO UPDATE SET requests = requests + excluded.requests, priced = priced + excluded.priced, calls = calls + excluded.calls, shadow_calls = shadow_calls + excluded.shadow_calls, errors = errors + excluded.errors, exact = exact + excluded.exact, semantic = semantic + excluded.semantic, routed = routed + excluded.routed, escalated = escalated + excluded.escalated, timed = timed + excluded.timed, micros = micros + excluded.micros, unpriced = unpriced + excluded.unpriced, paid = paid + excluded.paid, cost = cost + excluded.cost, rejected_cost = rejected_cost + excluded.rejected_cost, shadow_cost = shadow_cost + excluded.shadow_cost, saved_cache = saved_cache + excluded.saved_cache, saved_router = saved_router + excluded.saved_router, saved_batch = saved_batch + excluded.saved_batch; END;
CREATE TRIGGER calls_changing BEFORE UPDATE ON calls BEGIN INSERT INTO hours (hour, model, requests, priced, calls, shadow_calls, errors, exact, semantic, routed, escalated, timed, micros, unpriced, paid, cost, rejected_cost, shadow_cost, saved_cache, saved_router, saved_batch) SELECT hour, model, -requests, -priced, -calls, -shadow_calls, -errors, -exact, -semantic, -routed, -escalated, -timed, -micros, -unpriced, -paid, -cost, -rejected_cost, -shadow_cost, -saved_cache, -saved_router, -saved_batch FROM counted WHERE id = OLD.id ON CONFLICT (hour, model) DO UPDATE SET requests = requests + excluded.requests, priced = priced + excluded.priced, calls = calls + excluded.calls, shadow_calls = shadow_calls + excluded.shadow_calls, errors = errors + excluded.errors, exact = exact + excluded.exact, semantic = semantic + excluded.semantic, routed = routed + excluded.routed, escalated = escalated + excluded.escalated, timed = timed + excluded.timed, micros = micros + excluded.micros, unpriced = unpriced + excluded.unpriced, paid = paid + excluded.paid, cost = cost + excluded.cost, rejected_cost = rejected_cost + excluded.rejected_cost, shadow_cost = shadow_cost + excluded.shadow_cost, saved_cache = saved_cache + excluded.saved_cache, saved_router = saved_router + excluded.saved_router, saved_batch = saved_batch + excluded.saved_batch; END;
CREATE TRIGGER calls_changed AFTER UPDATE ON calls BEGIN INSERT INTO hours (hour, model, requests, priced, calls, shadow_calls, errors, exact, semantic, routed, escalated, timed, micros, unpriced, paid, cost, rejected_cost, shadow_cost, saved_cache, saved_router, saved_batch) SELECT hour, model, requests, priced, calls, shadow_calls, errors, exact, semantic, routed, escalated, timed, micros, unpriced, paid, cost, rejected_cost, shadow_cost, saved_cache, saved_router, saved_batch FROM counted WHERE id = NEW.id ON CONFLICT (hour, model) DO UPDATE SET requests = requests + excluded.requests, priced = priced + excluded.priced, calls = calls + excluded.calls, shadow_calls = shadow_calls + excluded.shadow_calls, errors = errors + excluded.errors, exact = exact + excluded.exact, semantic = semantic + excluded.semantic, routed = routed + excluded.routed, escalated = escalated + excluded.escalated, timed = timed + excluded.timed, micros = micros + excluded.micros, unpriced = unpriced + excluded.unpriced, paid = paid + excluded.paid, cost = cost + excluded.cost, rejected_cost = rejected_cost + excluded.rejected_cost, shadow_cost = shadow_cost + excluded.shadow_cost, saved_cache = saved_cache + excluded.saved_cache, saved_router = saved_router + excluded.saved_router, saved_batch = saved_batch + excluded.saved_batch; END;
COMMIT;
PRAGMA application_id = 1819045219;
PRAGMA user_version = 3;
