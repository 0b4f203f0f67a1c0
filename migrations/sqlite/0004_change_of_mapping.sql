-- Changes of single mappings name them, so that servers forget no others. Conventions as in 0001.
ALTER TABLE changes ADD COLUMN mapping_id TEXT;
