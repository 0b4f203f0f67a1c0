-- How many revisions are under a generation, and which generations there are, is found here; rows are read in
-- the order of the primary key. Without that key in the index a new revision goes to its end, and not to
-- a page of its own.

DROP INDEX configuration_revisions_by_generation;
CREATE INDEX configuration_revisions_by_generation ON configuration_revisions (generation);
