"""Control: the one writer. Holds the database, serves the admin API, ingests journals, hands out leases."""
