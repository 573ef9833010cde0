CREATE TABLE block (
	first INTEGER NOT NULL, 
	PRIMARY KEY (first)
);
CREATE TABLE content (
	task INTEGER NOT NULL, 
	document BLOB NOT NULL, 
	PRIMARY KEY (task)
);
CREATE TABLE log (
	task INTEGER NOT NULL, 
	logs BLOB NOT NULL, 
	PRIMARY KEY (task)
);
CREATE TABLE tag (
	owner INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	task INTEGER NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (owner, "key", task)
)
 WITHOUT ROWID;
CREATE INDEX tag_value ON tag (owner, "key", value, task);
CREATE TABLE task (
	id INTEGER NOT NULL, 
	owner INTEGER NOT NULL, 
	state SMALLINT NOT NULL, 
	submitted SMALLINT NOT NULL, 
	created BIGINT NOT NULL, 
	ended BIGINT, 
	block BIGINT NOT NULL, 
	name TEXT, 
	tags BLOB, 
	warnings BLOB, 
	basic BLOB NOT NULL, 
	logs BLOB, 
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
