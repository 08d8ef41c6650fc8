-- One string, one implicit transaction: the lock goes with it. Several gateways
-- start at once, and CREATE … IF NOT EXISTS alone can still collide.
SELECT pg_advisory_xact_lock(7020082116463461740);

CREATE TABLE IF NOT EXISTS {table} (
	instance   text        NOT NULL,
	epoch      text        NOT NULL,
	seq        bigint      NOT NULL,
	ts         timestamptz,
	class      text        NOT NULL,
	user_id    text        NOT NULL,
	action     text        NOT NULL,
	outcome    text        NOT NULL,
	ip         text        NOT NULL,
	request_id text        NOT NULL,
	-- The line as it stands in the journal. No json type: jsonb would put the
	-- fields in another order, and the hash chain covers the bytes.
	line       text        NOT NULL,
	PRIMARY KEY (instance, epoch, seq)
);

CREATE INDEX IF NOT EXISTS {name}_user_ts_idx ON {table} (user_id, ts);
CREATE INDEX IF NOT EXISTS {name}_action_ts_idx ON {table} (action, ts);
CREATE INDEX IF NOT EXISTS {name}_ts_idx ON {table} (ts);
