"""The nouns of RFC 4301 and RFC 7296 as frozen records: pure data, standard library only."""
