"""Where features lie: columns of rows by content, in memory and on disk."""
