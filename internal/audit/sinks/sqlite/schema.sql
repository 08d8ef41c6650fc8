CREATE TABLE IF NOT EXISTS {table} (
	instance   TEXT    NOT NULL,
	epoch      TEXT    NOT NULL,
	seq        INTEGER NOT NULL,
	-- Always YYYY-MM-DDTHH:MM:SS.ffffffZ: one width and one zone, so that the
	-- order of the text is the order of time, and SQLite's functions read it.
	ts         TEXT,
	class      TEXT    NOT NULL,
	user_id    TEXT    NOT NULL,
	action     TEXT    NOT NULL,
	outcome    TEXT    NOT NULL,
	ip         TEXT    NOT NULL,
	request_id TEXT    NOT NULL,
	-- The line as it stands in the journal: the hash chain covers the bytes.
	line       TEXT    NOT NULL,
	PRIMARY KEY (instance, epoch, seq)
);

CREATE INDEX IF NOT EXISTS {name}_user_ts_idx ON {table} (user_id, ts);
CREATE INDEX IF NOT EXISTS {name}_action_ts_idx ON {table} (action, ts);
CREATE INDEX IF NOT EXISTS {name}_ts_idx ON {table} (ts);
