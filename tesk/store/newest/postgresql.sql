CREATE TABLE block (
	first BIGINT NOT NULL, 
	PRIMARY KEY (first)
);
CREATE TABLE content (
	task BIGINT NOT NULL, 
	document BYTEA NOT NULL, 
	PRIMARY KEY (task)
);
CREATE TABLE log (
	task BIGINT NOT NULL, 
	logs BYTEA NOT NULL, 
	PRIMARY KEY (task)
);
CREATE TABLE tag (
	owner INTEGER NOT NULL, 
	key TEXT COLLATE "C" NOT NULL, 
	task BIGINT NOT NULL, 
	value TEXT COLLATE "C" NOT NULL, 
	PRIMARY KEY (owner, key, task)
);
CREATE INDEX tag_value ON tag (owner, key, value, task);
CREATE TABLE task (
	id BIGINT NOT NULL, 
	owner INTEGER NOT NULL, 
	state SMALLINT NOT NULL, 
	submitted SMALLINT NOT NULL, 
	created BIGINT NOT NULL, 
	ended BIGINT, 
	block BIGINT NOT NULL, 
	name TEXT COLLATE "C", 
	tags BYTEA, 
	warnings BYTEA, 
	basic BYTEA NOT NULL, 
	logs BYTEA, 
	PRIMARY KEY (id)
);
CREATE INDEX task_block ON task (owner, block, substr(name, 1, 500), id);
CREATE INDEX task_ended ON task (ended) WHERE ended IS NOT NULL;
CREATE INDEX task_name ON task (owner, substr(name, 1, 500), id);
CREATE INDEX task_owner ON task (owner, id, state);
CREATE INDEX task_state ON task (owner, state, id);
CREATE INDEX task_unfinished ON task (id) WHERE ended IS NULL;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO block (first) VALUES (0);
