-- Conventions, the same for both databases: ids are UUIDs as text, times are microseconds since the
-- Unix epoch in UTC, flags are 0 or 1, lists are JSON. A column `…_key` holds the canonical form of
-- the name beside it and is what comparisons use.

-- The SSO system itself: one row, written when the database is new.
CREATE TABLE system (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    system_id TEXT NOT NULL,
    -- The keystore of the master that first served this database; empty until then.
    keystore_id TEXT,
    sso_administrators TEXT NOT NULL,
    affiliate_administrators TEXT NOT NULL,
    secret_server TEXT NOT NULL,
    audit_deleted_applications INTEGER NOT NULL,
    audit_deleted_mappings INTEGER NOT NULL,
    audit_credential_lookups INTEGER NOT NULL,
    ticket_timeout INTEGER NOT NULL,
    credential_cache_timeout INTEGER NOT NULL,
    enabled INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE applications (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    description TEXT NOT NULL,
    contact TEXT NOT NULL,
    contact_key TEXT NOT NULL,
    administrators_same INTEGER NOT NULL,
    allow_local_accounts INTEGER NOT NULL,
    enabled INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- Who holds a role ('user', 'administrator') in an application, in the order given.
CREATE TABLE application_accounts (
    application_id TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    role TEXT NOT NULL,
    position INTEGER NOT NULL,
    account TEXT NOT NULL,
    account_key TEXT NOT NULL,
    PRIMARY KEY (application_id, role, position)
) STRICT, WITHOUT ROWID;
-- Which applications an account has a role in.
CREATE INDEX application_accounts_by_account ON application_accounts (account_key, application_id);

CREATE TABLE fields (
    application_id TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    label TEXT NOT NULL,
    label_key TEXT NOT NULL,
    masked INTEGER NOT NULL,
    PRIMARY KEY (application_id, ordinal),
    UNIQUE (application_id, label_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE configurations (
    id TEXT NOT NULL PRIMARY KEY,
    application_id TEXT NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    identifier TEXT NOT NULL,
    identifier_key TEXT NOT NULL,
    -- Rises by one with every write and every deletion.
    revision INTEGER NOT NULL,
    -- The revision that deleted it, 0 for none: deleted is what has deleted_revision = revision.
    deleted_revision INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    updated_by TEXT NOT NULL,
    UNIQUE (application_id, identifier_key)
) STRICT;

-- The values of one revision, sealed as one bag.
CREATE TABLE configuration_revisions (
    configuration_id TEXT NOT NULL REFERENCES configurations (id) ON DELETE CASCADE,
    revision INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    -- The generation of the master secret it is sealed under.
    generation INTEGER NOT NULL,
    -- Labels of the fields this revision changed.
    changed TEXT NOT NULL,
    -- The revision whose values a rollback took.
    rolled_back_to INTEGER,
    written_at INTEGER NOT NULL,
    written_by TEXT NOT NULL,
    PRIMARY KEY (configuration_id, revision)
) STRICT;

-- Append-only. Listed by time; the id decides between records of the same microsecond.
CREATE TABLE audit (
    id TEXT NOT NULL,
    at INTEGER NOT NULL,
    server TEXT NOT NULL,
    request_id TEXT NOT NULL,
    caller TEXT NOT NULL,
    caller_key TEXT NOT NULL,
    action TEXT NOT NULL,
    application TEXT NOT NULL,
    application_key TEXT NOT NULL,
    object TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (at, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_by_application ON audit (application_key, at, id);
CREATE INDEX audit_by_caller ON audit (caller_key, at, id);

-- What other servers must hear of. Rows are written in the transaction of the change itself; no
-- foreign keys, because the news of a deletion outlives what was deleted.
CREATE TABLE changes (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    application_id TEXT,
    configuration_id TEXT,
    at INTEGER NOT NULL
) STRICT;

-- The servers that share the database, each keeping its own row fresh.
CREATE TABLE servers (
    name TEXT NOT NULL PRIMARY KEY,
    address TEXT NOT NULL,
    version TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    master_state TEXT NOT NULL
) STRICT, WITHOUT ROWID;
