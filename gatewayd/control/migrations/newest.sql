-- What all migrations make of an empty database. Written by tests/control/test_database.py, which says how.

CREATE TABLE acknowledgement (
	subject VARCHAR NOT NULL, 
	count BIGINT NOT NULL, 
	at INTEGER NOT NULL, 
	actor VARCHAR NOT NULL, 
	PRIMARY KEY (subject)
);
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE alert (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	public_id VARCHAR NOT NULL, 
	tenant_id INTEGER NOT NULL, 
	kind VARCHAR NOT NULL, 
	key_id INTEGER, 
	threshold BIGINT NOT NULL, 
	url VARCHAR NOT NULL, 
	secret VARCHAR NOT NULL, 
	created_at INTEGER NOT NULL, 
	disabled_at INTEGER, 
	removed_at INTEGER, bound BOOLEAN DEFAULT FALSE NOT NULL, 
	UNIQUE (public_id), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id), 
	FOREIGN KEY(key_id) REFERENCES "key" (id)
);
CREATE TABLE alert_event (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	public_id VARCHAR NOT NULL, 
	alert_id INTEGER NOT NULL, 
	occasion VARCHAR NOT NULL, 
	type VARCHAR NOT NULL, 
	body TEXT NOT NULL, 
	created_at INTEGER NOT NULL, 
	attempts INTEGER NOT NULL, 
	next_at INTEGER, 
	delivered_at INTEGER, 
	error VARCHAR NOT NULL, 
	UNIQUE (public_id), 
	FOREIGN KEY(alert_id) REFERENCES alert (id)
);
CREATE TABLE audit (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	at INTEGER NOT NULL, 
	actor VARCHAR NOT NULL, 
	action VARCHAR NOT NULL, 
	tenant VARCHAR NOT NULL, 
	subject VARCHAR NOT NULL, 
	"before" TEXT, 
	"after" TEXT
, sha256 VARCHAR DEFAULT '' NOT NULL);
CREATE TABLE client (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	public_id VARCHAR NOT NULL, 
	tenant_id INTEGER NOT NULL, 
	key_id INTEGER, 
	name VARCHAR NOT NULL, 
	rates VARCHAR, 
	created_at INTEGER NOT NULL, 
	removed_at INTEGER, 
	UNIQUE (public_id), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id), 
	FOREIGN KEY(key_id) REFERENCES "key" (id)
);
CREATE TABLE config_revision (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	at INTEGER NOT NULL, 
	actor VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	message VARCHAR NOT NULL, 
	restored INTEGER, 
	added INTEGER NOT NULL, 
	changed INTEGER NOT NULL, 
	removed INTEGER NOT NULL, 
	document BLOB NOT NULL
, bound VARCHAR DEFAULT '[]' NOT NULL);
CREATE TABLE cycle (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	tenant_id INTEGER NOT NULL, 
	period VARCHAR NOT NULL, 
	starts_at INTEGER NOT NULL, 
	ends_at INTEGER NOT NULL, 
	closed_at INTEGER, 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id)
);
CREATE TABLE invoice (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	number VARCHAR NOT NULL, 
	tenant_id INTEGER NOT NULL, 
	cycle_id INTEGER NOT NULL, 
	issued_at INTEGER NOT NULL, 
	total VARCHAR NOT NULL, 
	body TEXT NOT NULL, 
	sha256 VARCHAR NOT NULL, 
	UNIQUE (number), 
	UNIQUE (cycle_id), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id), 
	FOREIGN KEY(cycle_id) REFERENCES cycle (id)
);
CREATE TABLE invoice_day (
	invoice_id INTEGER NOT NULL, 
	day INTEGER NOT NULL, 
	sha256 VARCHAR NOT NULL, 
	PRIMARY KEY (invoice_id, day), 
	FOREIGN KEY(invoice_id) REFERENCES invoice (id)
);
CREATE TABLE journal_loss (
	worker_id BLOB NOT NULL, 
	requests BIGINT NOT NULL, 
	PRIMARY KEY (worker_id)
);
CREATE TABLE "key" (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	public_id VARCHAR NOT NULL, 
	digest BLOB NOT NULL, 
	tenant_id INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	service_ids VARCHAR, 
	plan_id INTEGER, 
	created_at INTEGER NOT NULL, 
	expires_at INTEGER, 
	revoked_at INTEGER, disabled_at INTEGER, generation INTEGER DEFAULT 1 NOT NULL, generation_at INTEGER, first_used_at INTEGER, last_used_at INTEGER, allow VARCHAR DEFAULT '[]' NOT NULL, networks VARCHAR DEFAULT '[]' NOT NULL, overrides VARCHAR DEFAULT '{}' NOT NULL, labels VARCHAR DEFAULT '{}' NOT NULL, imported BOOLEAN DEFAULT FALSE NOT NULL, 
	FOREIGN KEY(plan_id) REFERENCES "plan" (id), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id), 
	UNIQUE (digest), 
	UNIQUE (public_id)
);
CREATE TABLE key_generation (
	key_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	digest BLOB NOT NULL, 
	created_at INTEGER NOT NULL, 
	until INTEGER, 
	last_used_at INTEGER, 
	ended_at INTEGER, 
	retire_after_s INTEGER, 
	PRIMARY KEY (key_id, number), 
	UNIQUE (digest), 
	FOREIGN KEY(key_id) REFERENCES "key" (id)
);
CREATE TABLE key_was (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	key_id INTEGER NOT NULL, 
	until INTEGER NOT NULL, 
	plan_id INTEGER, 
	price_id INTEGER, 
	disabled_at INTEGER, 
	expires_at INTEGER, 
	FOREIGN KEY(key_id) REFERENCES "key" (id)
);
CREATE TABLE ledger (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	tenant_id INTEGER NOT NULL, 
	cycle_id INTEGER NOT NULL, 
	at INTEGER NOT NULL, 
	kind VARCHAR NOT NULL, 
	key_id INTEGER NOT NULL, 
	service_id INTEGER NOT NULL, 
	price_id INTEGER NOT NULL, 
	first_day INTEGER NOT NULL, 
	requests BIGINT NOT NULL, 
	units BIGINT NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	nanos BIGINT NOT NULL, 
	reason VARCHAR NOT NULL, 
	author VARCHAR NOT NULL, 
	facts TEXT NOT NULL, 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id), 
	FOREIGN KEY(cycle_id) REFERENCES cycle (id)
);
CREATE TABLE "plan" (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	public_id VARCHAR NOT NULL, 
	tenant_id INTEGER NOT NULL, 
	name VARCHAR NOT NULL, 
	rates VARCHAR NOT NULL, 
	quota BIGINT, 
	price_id INTEGER NOT NULL, 
	created_at INTEGER NOT NULL, 
	removed_at INTEGER, version INTEGER DEFAULT 1 NOT NULL, in_flight_limit INTEGER, quota_soft BOOLEAN DEFAULT FALSE NOT NULL, shadow BOOLEAN DEFAULT FALSE NOT NULL, clients_limit INTEGER DEFAULT 0 NOT NULL, alerts VARCHAR DEFAULT '[]' NOT NULL, 
	FOREIGN KEY(price_id) REFERENCES price (id), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id), 
	UNIQUE (public_id)
);
CREATE TABLE plan_version (
	plan_id INTEGER NOT NULL, 
	version INTEGER NOT NULL, 
	created_at INTEGER NOT NULL, 
	terms TEXT NOT NULL, 
	PRIMARY KEY (plan_id, version), 
	FOREIGN KEY(plan_id) REFERENCES "plan" (id)
);
CREATE TABLE "price" (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	terms TEXT NOT NULL, 
	UNIQUE (terms)
);
CREATE TABLE progress (
	name VARCHAR NOT NULL, 
	value INTEGER NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE quota_alert (
	key_id INTEGER NOT NULL, 
	month INTEGER NOT NULL, 
	percent INTEGER NOT NULL, 
	at INTEGER NOT NULL, 
	PRIMARY KEY (key_id, month, percent), 
	FOREIGN KEY(key_id) REFERENCES "key" (id)
);
CREATE TABLE quota_grant (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	public_id VARCHAR NOT NULL, 
	key_id INTEGER NOT NULL, 
	month INTEGER NOT NULL, 
	units BIGINT NOT NULL, 
	is_reset BOOLEAN NOT NULL, 
	until INTEGER, 
	created_at INTEGER NOT NULL, 
	reason VARCHAR NOT NULL, 
	UNIQUE (public_id), 
	FOREIGN KEY(key_id) REFERENCES "key" (id)
);
CREATE TABLE refusal_minute (
	alert_id INTEGER NOT NULL, 
	minute INTEGER NOT NULL, 
	requests BIGINT NOT NULL, 
	PRIMARY KEY (alert_id, minute), 
	FOREIGN KEY(alert_id) REFERENCES alert (id)
)
 WITHOUT ROWID

;
CREATE TABLE rollup (
	tenant_id INTEGER NOT NULL, 
	hour INTEGER NOT NULL, 
	cycle_id INTEGER NOT NULL, 
	service_id INTEGER NOT NULL, 
	route_id INTEGER NOT NULL, 
	key_id INTEGER NOT NULL, 
	client_id INTEGER NOT NULL, 
	price_id INTEGER NOT NULL, 
	status_class INTEGER NOT NULL, 
	requests BIGINT NOT NULL, 
	billable BIGINT NOT NULL, 
	errors BIGINT NOT NULL, 
	refused BIGINT NOT NULL, 
	units BIGINT NOT NULL, 
	bytes_in BIGINT NOT NULL, 
	bytes_out BIGINT NOT NULL, 
	latency BLOB NOT NULL, billable_units BIGINT DEFAULT 0 NOT NULL, billable_bytes BIGINT DEFAULT 0 NOT NULL, 
	PRIMARY KEY (tenant_id, hour, cycle_id, service_id, route_id, key_id, client_id, price_id, status_class), 
	FOREIGN KEY(cycle_id) REFERENCES cycle (id)
)
 WITHOUT ROWID

;
CREATE TABLE rollup_day (
	tenant_id INTEGER NOT NULL, 
	day INTEGER NOT NULL, 
	cycle_id INTEGER NOT NULL, 
	service_id INTEGER NOT NULL, 
	route_id INTEGER NOT NULL, 
	key_id INTEGER NOT NULL, 
	client_id INTEGER NOT NULL, 
	price_id INTEGER NOT NULL, 
	status_class INTEGER NOT NULL, 
	requests BIGINT NOT NULL, 
	billable BIGINT NOT NULL, 
	errors BIGINT NOT NULL, 
	refused BIGINT NOT NULL, 
	units BIGINT NOT NULL, 
	bytes_in BIGINT NOT NULL, 
	bytes_out BIGINT NOT NULL, 
	latency BLOB NOT NULL, 
	billable_units BIGINT DEFAULT 0 NOT NULL, 
	billable_bytes BIGINT DEFAULT 0 NOT NULL, 
	PRIMARY KEY (tenant_id, day, cycle_id, service_id, route_id, key_id, client_id, price_id, status_class), 
	FOREIGN KEY(cycle_id) REFERENCES cycle (id)
)
 WITHOUT ROWID

;
CREATE TABLE route (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	public_id VARCHAR NOT NULL, 
	tenant_id INTEGER NOT NULL, 
	service_id INTEGER, 
	name VARCHAR NOT NULL, 
	host VARCHAR, 
	path VARCHAR NOT NULL, 
	exact BOOLEAN NOT NULL, 
	methods VARCHAR, 
	prefix VARCHAR NOT NULL, 
	auth VARCHAR, 
	rates VARCHAR NOT NULL, 
	weight INTEGER NOT NULL, 
	timeout_s FLOAT, 
	first_byte_timeout_s FLOAT, 
	body_limit_bytes BIGINT, 
	networks VARCHAR NOT NULL, 
	created_at INTEGER NOT NULL, 
	removed_at INTEGER, 
	UNIQUE (public_id), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id), 
	FOREIGN KEY(service_id) REFERENCES service (id)
);
CREATE TABLE segment (
	name VARCHAR NOT NULL, 
	position_bytes INTEGER NOT NULL, 
	torn INTEGER NOT NULL, requests BIGINT DEFAULT 0 NOT NULL, billable BIGINT DEFAULT 0 NOT NULL, refused BIGINT DEFAULT 0 NOT NULL, units BIGINT DEFAULT 0 NOT NULL, 
	PRIMARY KEY (name)
);
CREATE TABLE service (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	public_id VARCHAR NOT NULL, 
	tenant_id INTEGER NOT NULL, 
	slug VARCHAR NOT NULL, 
	auth VARCHAR NOT NULL, 
	paths VARCHAR NOT NULL, 
	preserve_host BOOLEAN NOT NULL, 
	connect_timeout_s FLOAT NOT NULL, 
	body_limit_bytes BIGINT, 
	key_header VARCHAR NOT NULL, 
	created_at INTEGER NOT NULL, 
	removed_at INTEGER, timeout_s FLOAT, first_byte_timeout_s FLOAT DEFAULT (30.0) NOT NULL, idle_timeout_s FLOAT DEFAULT (300.0) NOT NULL, tunnel_lifetime_s FLOAT, in_flight_limit INTEGER, tls_verify BOOLEAN DEFAULT TRUE NOT NULL, tls_server_name VARCHAR, tls_ca_file VARCHAR, tls_cert_file VARCHAR, tls_key_file VARCHAR, balance VARCHAR DEFAULT 'round-robin' NOT NULL, hash_on VARCHAR DEFAULT 'address' NOT NULL, health VARCHAR DEFAULT '{}' NOT NULL, breaker VARCHAR DEFAULT '{}' NOT NULL, header_rules VARCHAR DEFAULT '[]' NOT NULL, 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id), 
	UNIQUE (public_id)
);
CREATE TABLE tally (
	cycle_id INTEGER NOT NULL, 
	day INTEGER NOT NULL, 
	requests BIGINT NOT NULL, 
	billable BIGINT NOT NULL, 
	refused BIGINT NOT NULL, 
	units BIGINT NOT NULL, 
	bytes_in BIGINT NOT NULL, 
	bytes_out BIGINT NOT NULL, 
	PRIMARY KEY (cycle_id, day), 
	FOREIGN KEY(cycle_id) REFERENCES cycle (id)
)
 WITHOUT ROWID

;
CREATE TABLE target (
	id INTEGER NOT NULL, 
	service_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	url VARCHAR NOT NULL, 
	weight INTEGER NOT NULL, drained BOOLEAN DEFAULT FALSE NOT NULL, bound BOOLEAN DEFAULT FALSE NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(service_id) REFERENCES service (id)
);
CREATE TABLE tenant (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	public_id VARCHAR NOT NULL, 
	slug VARCHAR NOT NULL, 
	name VARCHAR NOT NULL, 
	currency VARCHAR NOT NULL, 
	suspended BOOLEAN NOT NULL, 
	created_at INTEGER NOT NULL, 
	removed_at INTEGER, contact VARCHAR DEFAULT '' NOT NULL, time_zone VARCHAR DEFAULT 'UTC' NOT NULL, default_plan_id INTEGER, rates VARCHAR DEFAULT '[]' NOT NULL, allow VARCHAR DEFAULT '[]' NOT NULL, imported_keys BOOLEAN DEFAULT FALSE NOT NULL, 
	UNIQUE (public_id)
);
CREATE TABLE token (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	public_id VARCHAR NOT NULL, 
	digest BLOB NOT NULL, 
	name VARCHAR NOT NULL, 
	role VARCHAR NOT NULL, 
	tenant_id INTEGER, 
	created_at INTEGER NOT NULL, 
	created_by VARCHAR NOT NULL, 
	expires_at INTEGER, 
	last_used_at INTEGER, 
	revoked_at INTEGER, 
	UNIQUE (public_id), 
	UNIQUE (digest), 
	FOREIGN KEY(tenant_id) REFERENCES tenant (id)
);
CREATE INDEX alert_by_tenant ON alert (tenant_id, id);
CREATE INDEX alert_event_by_age ON alert_event (created_at);
CREATE INDEX alert_event_due ON alert_event (alert_id, next_at);
CREATE UNIQUE INDEX alert_event_once ON alert_event (alert_id, occasion);
CREATE INDEX client_by_name ON client (tenant_id, name, key_id);
CREATE UNIQUE INDEX cycle_period ON cycle (tenant_id, period);
CREATE INDEX invoice_by_tenant ON invoice (tenant_id, id);
CREATE INDEX ix_client_key_id ON client (key_id);
CREATE INDEX ix_key_plan_id ON "key" (plan_id);
CREATE INDEX ix_route_service_id ON route (service_id);
CREATE INDEX ix_target_service_id ON target (service_id);
CREATE INDEX key_by_name ON "key" (tenant_id, name);
CREATE INDEX key_by_tenant ON "key" (tenant_id, id);
CREATE INDEX key_was_by_key ON key_was (key_id, id);
CREATE INDEX ledger_by_cycle ON ledger (cycle_id, id);
CREATE UNIQUE INDEX plan_name_live ON "plan" (tenant_id, name) WHERE removed_at IS NULL;
CREATE INDEX quota_grant_by_key ON quota_grant (key_id, month);
CREATE INDEX rollup_by_key ON rollup (key_id, hour);
CREATE INDEX rollup_day_by_cycle ON rollup_day (cycle_id);
CREATE INDEX rollup_day_by_key ON rollup_day (key_id, day);
CREATE INDEX route_by_tenant ON route (tenant_id, id);
CREATE UNIQUE INDEX service_slug_live ON service (tenant_id, slug) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX tenant_slug_live ON tenant (slug) WHERE removed_at IS NULL;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;
CREATE TRIGGER invoice_day_no_delete BEFORE DELETE ON invoice_day BEGIN SELECT RAISE(ABORT, 'invoice_day is append-only'); END;
CREATE TRIGGER invoice_day_no_update BEFORE UPDATE ON invoice_day BEGIN SELECT RAISE(ABORT, 'invoice_day is append-only'); END;
CREATE TRIGGER invoice_no_delete BEFORE DELETE ON invoice BEGIN SELECT RAISE(ABORT, 'invoice is append-only'); END;
CREATE TRIGGER invoice_no_update BEFORE UPDATE ON invoice BEGIN SELECT RAISE(ABORT, 'invoice is append-only'); END;
CREATE TRIGGER ledger_no_delete BEFORE DELETE ON ledger BEGIN SELECT RAISE(ABORT, 'ledger is append-only'); END;
CREATE TRIGGER ledger_no_update BEFORE UPDATE ON ledger BEGIN SELECT RAISE(ABORT, 'ledger is append-only'); END;
CREATE TRIGGER price_no_delete BEFORE DELETE ON price BEGIN SELECT RAISE(ABORT, 'price is append-only'); END;
CREATE TRIGGER price_no_update BEFORE UPDATE ON price BEGIN SELECT RAISE(ABORT, 'price is append-only'); END;
INSERT INTO "alembic_version" (version_num) VALUES ('0008');
INSERT INTO "price" (id, terms) VALUES (1, '{"request_nanos":1000000}');
INSERT INTO "tenant" (id, public_id, slug, name, currency, suspended, created_at, removed_at, contact, time_zone, default_plan_id, rates, allow, imported_keys) VALUES (1, 'ten_' || :public_id, 'default', '', 'USD', 0, :now, NULL, '', 'UTC', NULL, '[]', '[]', 0);
