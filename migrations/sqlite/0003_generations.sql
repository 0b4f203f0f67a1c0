-- The life of the master secret: which generations values may be sealed under, who leads the masters,
-- who seals again, and which servers lost their right. Conventions as in 0001.

-- The highest epoch that a master showed, and the id of the primary of that epoch; 0 = none yet.
ALTER TABLE system ADD COLUMN master_epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE system ADD COLUMN master_primary TEXT;

-- Every generation that a master handed out. Values are sealed only under one that is not closed: each
-- transaction that writes a sealed value holds its row.
CREATE TABLE generations (
    generation INTEGER NOT NULL PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    admitted_at INTEGER NOT NULL,
    -- Nothing is sealed under it since then, which a count in the same transaction proved; NULL = open.
    closed_at INTEGER
) STRICT;

-- Work that one server at a time does. Whoever takes it over raises the fencing number, and whatever is
-- done under a lower one is undone.
CREATE TABLE work_leases (
    name TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    fencing INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How often the right of a server to the master secret was revoked or given back: odd = it is revoked. The
-- highest number that any master said.
CREATE TABLE revocations (
    server TEXT NOT NULL PRIMARY KEY,
    number INTEGER NOT NULL,
    noted_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What is still sealed under which generation.
CREATE INDEX configuration_revisions_by_generation
    ON configuration_revisions (generation, configuration_id, revision);
CREATE INDEX mappings_by_generation ON mappings (generation, id);
