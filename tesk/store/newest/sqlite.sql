CREATE TABLE api_token (
	id TEXT NOT NULL, 
	digest BLOB NOT NULL, 
	username TEXT NOT NULL, 
	name TEXT NOT NULL, 
	scopes TEXT NOT NULL, 
	way TEXT NOT NULL, 
	rights BLOB NOT NULL, 
	made BIGINT NOT NULL, 
	expires BIGINT NOT NULL, 
	used BIGINT, 
	revoked BIGINT, 
	PRIMARY KEY (id)
)
 WITHOUT ROWID;
CREATE UNIQUE INDEX api_token_digest ON api_token (digest);
CREATE INDEX api_token_username ON api_token (username, made, id);
CREATE TABLE content (
	task INTEGER NOT NULL, 
	document BLOB NOT NULL, 
	PRIMARY KEY (task)
);
CREATE TABLE frontier (
	one INTEGER NOT NULL, 
	closed BIGINT NOT NULL, 
	PRIMARY KEY (one)
);
CREATE TABLE log (
	task INTEGER NOT NULL, 
	logs BLOB NOT NULL, 
	PRIMARY KEY (task)
);
CREATE TABLE place (
	ordinal INTEGER NOT NULL, 
	task BIGINT NOT NULL, 
	PRIMARY KEY (ordinal)
);
CREATE TABLE principal (
	id INTEGER NOT NULL, 
	kind SMALLINT NOT NULL, 
	name TEXT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE UNIQUE INDEX principal_name ON principal (kind, name);
CREATE TABLE share (
	owner INTEGER NOT NULL, 
	colleague INTEGER NOT NULL, 
	PRIMARY KEY (owner, colleague)
);
CREATE TABLE span (
	number INTEGER NOT NULL, 
	first BIGINT NOT NULL, 
	last BIGINT NOT NULL, 
	held INTEGER NOT NULL, 
	unended INTEGER NOT NULL, 
	alive INTEGER NOT NULL, 
	pruned INTEGER NOT NULL, 
	PRIMARY KEY (number)
);
CREATE UNIQUE INDEX span_first ON span (first);
CREATE TABLE tag (
	"key" TEXT NOT NULL, 
	task INTEGER NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY ("key", task)
)
 WITHOUT ROWID;
CREATE INDEX tag_value ON tag ("key", value, task);
CREATE TABLE task (
	id INTEGER NOT NULL, 
	owner INTEGER NOT NULL, 
	state SMALLINT NOT NULL, 
	submitted SMALLINT NOT NULL, 
	created BIGINT NOT NULL, 
	ended BIGINT, 
	name TEXT, 
	tags BLOB, 
	warnings BLOB, 
	basic BLOB NOT NULL, 
	logs BLOB, 
	owner_group INTEGER DEFAULT 0 NOT NULL, 
	grants BLOB, 
	PRIMARY KEY (id)
);
CREATE INDEX task_ended ON task (ended) WHERE ended IS NOT NULL;
CREATE INDEX task_name ON task (substr(name, 1, 500), id);
CREATE INDEX task_owner ON task (owner, id, state) WHERE owner <> 0;
CREATE INDEX task_owner_group ON task (owner_group, id, state) WHERE owner_group <> 0;
CREATE INDEX task_state ON task (state, id);
CREATE INDEX task_unfinished ON task (id, owner) WHERE ended IS NULL;
CREATE TABLE term (
	span INTEGER NOT NULL, 
	term TEXT NOT NULL, 
	found BLOB NOT NULL, 
	PRIMARY KEY (span, term)
)
 WITHOUT ROWID;
CREATE TABLE usage (
	month TEXT NOT NULL, 
	owner INTEGER NOT NULL, 
	owner_group INTEGER NOT NULL, 
	lane SMALLINT NOT NULL, 
	tasks BIGINT NOT NULL, 
	core_ms BIGINT NOT NULL, 
	ram_gib_ms BIGINT NOT NULL, 
	gpu_ms BIGINT NOT NULL, 
	bytes_out BIGINT NOT NULL, 
	PRIMARY KEY (month, owner, owner_group, lane)
)
 WITHOUT ROWID;
CREATE INDEX usage_owner_group ON usage (month, owner_group) WHERE owner_group <> 0;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO frontier (one, closed) VALUES (1, 0);
