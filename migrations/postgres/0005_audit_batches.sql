-- The records of reveals and denials, many in one row, as the servers' journals bring them. Records of
-- changes are rows of `audit`. Conventions as in 0001.

CREATE TABLE audit_batches (
    -- The file of the journal that the records were in, and from which byte to which.
    segment TEXT COLLATE "C" NOT NULL,
    first_offset BIGINT NOT NULL,
    last_offset BIGINT NOT NULL,
    server TEXT NOT NULL,
    -- The earliest and the latest record.
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    entries BIGINT NOT NULL,
    -- The applications and callers of all records where there are few, else NULL: what cannot hold what
    -- is searched for is not opened.
    application_keys TEXT,
    caller_keys TEXT,
    records BYTEA NOT NULL,
    PRIMARY KEY (segment, first_offset)
);
-- Not compressed: it is read as often as written, and ids do not shrink.
ALTER TABLE audit_batches ALTER COLUMN records SET STORAGE EXTERNAL;
CREATE INDEX audit_batches_by_time ON audit_batches (last_at, segment, first_offset, first_at);
