-- Which generations nothing is sealed under is noted, with what was counted, so that nobody has to look for it all
-- the time, and no index has the generation of a value: sealing it again changes no index (a HOT update, for
-- which the fill factor keeps room). Conventions as in 0001.

-- NULL = values may be sealed under it; the id of a sweep = nobody wrote under it since that sweep began to
-- count; 'empty' = such a count found nothing, and nobody wrote under it since.
ALTER TABLE generations ADD COLUMN sweep TEXT;

-- What the last count found.
CREATE TABLE sealed_counts (
    generation BIGINT NOT NULL PRIMARY KEY,
    revisions BIGINT NOT NULL,
    credentials BIGINT NOT NULL,
    counted_at BIGINT NOT NULL
);

DROP INDEX configuration_revisions_by_generation;
DROP INDEX mappings_by_generation;
