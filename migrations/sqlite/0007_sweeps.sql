-- Which generations nothing is sealed under is noted, with what was counted, so that nobody has to look for it all
-- the time. The indexes with the generation stay here, where the one writer counts before it closes a
-- generation and everybody waits for it. Conventions as in 0001.

-- NULL = values may be sealed under it; the id of a sweep = nobody wrote under it since that sweep began to
-- count; 'empty' = such a count found nothing, and nobody wrote under it since.
ALTER TABLE generations ADD COLUMN sweep TEXT;

-- What the last count found.
CREATE TABLE sealed_counts (
    generation INTEGER NOT NULL PRIMARY KEY,
    revisions INTEGER NOT NULL,
    credentials INTEGER NOT NULL,
    counted_at INTEGER NOT NULL
) STRICT;
