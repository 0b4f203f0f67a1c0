-- Which revisions are under a generation is counted and looked for here; their order is that of the primary key.
-- Without it in the index a new revision goes to the end, and not to a page of its own.

DROP INDEX configuration_revisions_by_generation;
CREATE INDEX configuration_revisions_by_generation ON configuration_revisions (generation);
