-- Single sign-on: applications of every type, mappings with sealed credentials, one-time tickets, and
-- what an administrator sets for the system and for each server. Conventions as in 0001.

ALTER TABLE system ADD COLUMN tickets_allowed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE system ADD COLUMN tickets_validated BIGINT NOT NULL DEFAULT 1;
ALTER TABLE system ADD COLUMN host_initiated_allowed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE system ADD COLUMN trusted_hosts TEXT NOT NULL DEFAULT '[]';
ALTER TABLE system ADD COLUMN configuration_readers TEXT NOT NULL DEFAULT '[]';
ALTER TABLE system ADD COLUMN auditors TEXT NOT NULL DEFAULT '[]';

-- Names of the flags that are on.
ALTER TABLE applications ADD COLUMN flags TEXT NOT NULL DEFAULT '[]';
-- Minutes; 0 = as the system says.
ALTER TABLE applications ADD COLUMN ticket_timeout BIGINT NOT NULL DEFAULT 0;

ALTER TABLE fields ADD COLUMN synchronized BIGINT NOT NULL DEFAULT 0;

CREATE TABLE mappings (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    application_id TEXT COLLATE "C" NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    account TEXT NOT NULL,
    account_key TEXT COLLATE "C" NOT NULL,
    external_user TEXT NOT NULL,
    external_user_key TEXT COLLATE "C" NOT NULL,
    -- The keys again on the sides that are unique in this type of application, else NULL.
    unique_account_key TEXT COLLATE "C",
    unique_external_user_key TEXT COLLATE "C",
    state TEXT COLLATE "C" NOT NULL,
    -- The credentials, sealed as one bag, and the generation of the master secret they are sealed under;
    -- NULL = none were set.
    sealed BYTEA,
    generation BIGINT,
    credentials_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    updated_by TEXT NOT NULL,
    UNIQUE (application_id, unique_account_key),
    UNIQUE (application_id, unique_external_user_key)
) WITH (fillfactor = 50);
-- What is encrypted does not compress: do not try.
ALTER TABLE mappings ALTER COLUMN sealed SET STORAGE EXTERNAL;
CREATE INDEX mappings_by_account ON mappings (application_id, account_key, id);
CREATE INDEX mappings_by_external_user
    ON mappings (application_id, external_user_key, account_key, id);

-- Tickets that were redeemed by applications which take each ticket once, until they have expired.
CREATE TABLE redeemed_tickets (
    ticket_id TEXT COLLATE "C" NOT NULL,
    application_id TEXT COLLATE "C" NOT NULL REFERENCES applications (id) ON DELETE CASCADE,
    redeemed_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (application_id, ticket_id)
);
CREATE INDEX redeemed_tickets_by_expiry ON redeemed_tickets (expires_at);

-- What an administrator set for one server; a server without a row has the defaults.
CREATE TABLE server_settings (
    server TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    positive_audit_level BIGINT NOT NULL,
    negative_audit_level BIGINT NOT NULL,
    remote_lookup BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- Who had an account name first, by what the identity source calls them for ever.
CREATE TABLE principals (
    account_key TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    account TEXT NOT NULL,
    subject TEXT NOT NULL,
    first_seen_at BIGINT NOT NULL,
    -- The last other one who came with this name, and when.
    refused_subject TEXT,
    refused_at BIGINT
);
