"""What pairings share: tables of regions, which of them are usable, the nearest ones, how often each is used."""
