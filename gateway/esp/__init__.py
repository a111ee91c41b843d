"""ESP packet transforms, sans-IO (RFC 4303): the software path, and the oracle of the native engine."""
