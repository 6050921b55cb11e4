"""What each stage promises the next, as sentences that are checked: graphs, fusion, loop nests, plans."""
