"""From folders as their publishers and users have them to a catalog."""
