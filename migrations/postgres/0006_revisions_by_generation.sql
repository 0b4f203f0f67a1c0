-- Nothing to do: here the rows of a generation are read in the order that the index has.

SELECT 1;
